"""What was matched, what is missing and what was left over when weights met a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fromnoise.runtime.errors import FromnoiseError


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

    @property
    def complete(self) -> bool:
        """True when every weight found its place and nothing undeclared was left."""
        return not (self.missing or self.unexpected or self.misshapen)

    def require_complete(self) -> None:
        """FromnoiseError naming the file, the family and the first offending keys unless `complete`."""
        if self.complete:
            return
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
            for what, keys in (("missing", self.missing), ("unknown", self.unexpected), ("misshapen", self.misshapen))
            if keys
        ]
        raise FromnoiseError(f"{self.source} is no {self.family}: {'; '.join(parts)}; {len(self.matched)} keys matched")


def compare(
    source: Path,
    family: str,
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    harmless: tuple[str, ...] = (),
) -> LoadReport:
    """Hold the keys and shapes of a file against those of a module. `harmless` are endings of keys to overlook."""
    shared = [key for key in expected if key in found]
    extra = [key for key in found if key not in expected]
    return LoadReport(
        source=source,
        family=family,
        matched=tuple(key for key in shared if expected[key].shape == found[key].shape),
        missing=tuple(key for key in expected if key not in found),
        unexpected=tuple(key for key in extra if not key.endswith(harmless)),
        misshapen=tuple(
            f"{key} {list(found[key].shape)} instead of {list(expected[key].shape)}"
            for key in shared
            if expected[key].shape != found[key].shape
        ),
        harmless=tuple(key for key in extra if key.endswith(harmless)),
    )
