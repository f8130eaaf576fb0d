"""Concepts are Unicode code point sequences, written as lower-case hex joined by "-": "1f34e", "1f408-200d-2b1b"."""

from __future__ import annotations

import re

__all__ = ["SKIN_TONES", "characters", "normalise", "slug", "squash"]

_VARIATION_SELECTOR = "fe0f"
SKIN_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})


def normalise(code_points: str) -> str:
    """The one spelling of a sequence: lower case, no leading zeros, no variation selectors.

    Raises ValueError for what is no sequence of hex code points.
    """
    parts = [f"{int(part, 16):x}" for part in re.split(r"[-_ ]", code_points)]
    return "-".join(part for part in parts if part != _VARIATION_SELECTOR)


def characters(code_points: str) -> str:
    """The text that the sequence spells."""
    return "".join(chr(int(part, 16)) for part in code_points.split("-"))


def slug(name: str) -> str:
    """A name as icon files spell it: "T-Rex" becomes "t-rex"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("’", "").replace("'", "")).strip("-")


def squash(name: str) -> str:
    """A name without anything but letters and digits, so that "red-apple" and "redapple" meet."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
