"""Whether a value is what a field may hold: UsageError in one line when it isn't."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from fromnoise.runtime.errors import UsageError

LONGEST_TEXT = 8000
"""Characters of a prompt: far more than any text encoder reads, and few enough for a picture's EXIF."""


def plain(value: Any) -> Any:
    """numpy's and torch's single numbers as Python's own, and lists as tuples; anything else as it is."""
    if isinstance(value, list | tuple):
        return tuple(map(plain, cast("list[Any]", value)))
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def text(name: str, value: object) -> None:
    """Unicode that files can hold, not too long."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise UsageError(f"{name} must be text of at most {LONGEST_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name} must be valid Unicode; check the terminal's encoding") from None
    if "\0" in value:
        raise UsageError(f"{name} must not hold the character NUL, which no picture's settings can")


def choice(name: str, value: object, choices: Collection[str]) -> None:
    """One of several words."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"no {name} {value!r}; choose one of {', '.join(choices)}")


def number(name: str, value: Any, low: float, high: float, kind: type = float) -> None:
    """A number from `low` to `high`, a whole one where `kind` is int."""
    if isinstance(value, bool) or not isinstance(value, int | kind) or not low <= value <= high:
        bounds = f"a whole number from {low} to {high}" if kind is int else f"a number from {low:g} to {high:g}"
        raise UsageError(f"{name} must be {bounds}, not {value!r}")


def numbers(name: str, values: Any, count: int) -> None:
    """So many values, of which it isn't said yet what they may be."""
    if not isinstance(values, tuple) or len(cast("tuple[Any, ...]", values)) != count:
        raise UsageError(f"{name} must be {count} numbers, not {values!r}")


def share(name: str, values: Any) -> None:
    """Two numbers from 0 to 1 that rise."""
    numbers(name, values, 2)
    for value in values:
        number(name, value, 0, 1)
    if values[0] >= values[1]:
        raise UsageError(f"{name} must rise, not go from {values[0]:g} to {values[1]:g}")


def of_kind(name: str, value: object, kind: type, words: str) -> None:
    """An object of a class, which a person calls by `words`."""
    if not isinstance(value, kind):
        raise UsageError(f"{name} must be {words}, not {_short(value)}")


def all_of_kind(name: str, values: Any, kind: type, words: str) -> None:
    """A list of such objects."""
    if not isinstance(values, tuple) or not all(isinstance(each, kind) for each in cast("tuple[Any, ...]", values)):
        raise UsageError(f"{name} must be a list of {words}, not {_short(cast('object', values))}")


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:60]}…"
