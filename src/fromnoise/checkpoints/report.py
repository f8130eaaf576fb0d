"""What was matched, what is missing and what was left over when weights met a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from fromnoise.runtime.errors import FromnoiseError

SHOWN = 3


class Shaped(Protocol):
    """A tensor, or one that is still in its file."""

    @property
    def shape(self) -> Iterable[int]:
        """Its sizes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Its number format."""
        ...


@dataclass(frozen=True)
class LoadReport:
    """Keys by what became of them; `harmless` are left-overs that the family declares as such."""

    source: Path
    family: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    harmless: tuple[str, ...]
    mistyped: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True when every weight found its place and nothing undeclared was left."""
        return not (self.missing or self.unexpected or self.misshapen or self.mistyped)

    def require_complete(self) -> None:
        """FromnoiseError naming the file, the family and the first offending keys unless `complete`."""
        if self.complete:
            return
        wrong = {
            "missing": self.missing,
            "unknown": self.unexpected,
            "misshapen": self.misshapen,
            "of a wrong type": self.mistyped,
        }
        parts = [f"{len(keys)} {what} ({first_of(keys)})" for what, keys in wrong.items() if keys]
        raise FromnoiseError(f"{self.source} is no {self.family}: {'; '.join(parts)}; {len(self.matched)} keys matched")


def first_of(keys: Iterable[str]) -> str:
    """The first keys, and dots where there are more."""
    keys = list(keys)
    return ", ".join(keys[:SHOWN]) + (", …" if len(keys) > SHOWN else "")


def compare(
    source: Path,
    family: str,
    expected: Mapping[str, Shaped],
    found: Mapping[str, Shaped],
    harmless: tuple[str, ...] = (),
) -> LoadReport:
    """Hold the keys, shapes and kinds of number of a file against those of a module.

    `harmless` are endings of keys to overlook.
    """
    shared = [key for key in expected if key in found]
    extra = [key for key in found if key not in expected]
    misshapen = [key for key in shared if tuple(expected[key].shape) != tuple(found[key].shape)]
    mistyped = [key for key in shared if expected[key].dtype.is_floating_point != found[key].dtype.is_floating_point]
    wrong = {*misshapen, *mistyped}
    return LoadReport(
        source=source,
        family=family,
        matched=tuple(key for key in shared if key not in wrong),
        missing=tuple(key for key in expected if key not in found),
        unexpected=tuple(key for key in extra if not key.endswith(harmless)),
        misshapen=tuple(f"{key} {list(found[key].shape)} instead of {list(expected[key].shape)}" for key in misshapen),
        harmless=tuple(key for key in extra if key.endswith(harmless)),
        mistyped=tuple(f"{key} {found[key].dtype}" for key in mistyped),
    )
