"""Standard input, output and error: any of them may be closed, and some can't hold every character."""

from __future__ import annotations

import io
import re
import sys
from typing import TextIO

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def is_terminal(stream: TextIO | None) -> bool:
    """True when a person is at the other end; a closed stream, which Python may call None, has nobody there."""
    return stream is not None and not stream.closed and stream.isatty()


def printable(text: str) -> str:
    """Text without characters that would steer the terminal; line ends and tabs stay."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def forgive_characters() -> None:
    """Write what standard output and error can't encode in another way instead of failing: bytes of file names as
    they are, anything else as `\\u732b`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if unicode else "backslashreplace")
