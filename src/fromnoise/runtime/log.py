"""Notes to the person: standard error only, and only where somebody can read them."""

from __future__ import annotations

import logging

logger = logging.getLogger("fromnoise")
logger.addHandler(logging.NullHandler())


def note(message: str) -> None:
    """Say something worth knowing that is no error; the command line shows it on standard error."""
    logger.info(message)


def warn(message: str) -> None:
    """Say something that probably is not what the person wanted."""
    logger.warning(message)
