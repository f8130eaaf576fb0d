"""How fast this machine is, measured once and kept in the user's cache folder, and what real runs taught since."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from fromnoise.runtime.device import cpu_name
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write, cache_dir

READY = "getting ready"
"""The kind of a speed in weights a second that are laid out before they are first used."""

NEAREST = 3
"""Measured speeds that a speed between them is made of."""

BELIEVED = (0.25, 4.0)
"""Bounds of what a real run may correct a prediction by."""


@dataclass(frozen=True)
class Speed:
    """`rate` operations a second for a kind of work on so many rows (pixels or tokens) of so many channels."""

    kind: str
    rows: int
    width: int
    rate: float

    def distance(self, rows: int, width: int) -> float:
        """How unlike another piece of work it is, in doublings."""
        return math.hypot(math.log2(rows / self.rows), math.log2(width / self.width))


@dataclass(frozen=True)
class Machine:
    """A machine's speeds; `name` tells CPU, threads, torch and number format, which speeds belong to.

    `starts` are the seconds that a block of a kind takes with next to nothing to do, by kind, and `anew` those that it
    takes longer when it is given so many maps for the first time.
    """

    name: str
    speeds: tuple[Speed, ...]
    starts: Mapping[str, float] = field(default_factory=dict)
    anew: Mapping[str, float] = field(default_factory=dict)

    def rate(self, kind: str, rows: int, width: int) -> float:
        """Operations a second: the nearest measured speeds of the kind, the nearer the more, in their logarithms."""
        known = [each for each in self.speeds if each.kind == kind]
        near = sorted(known, key=lambda each: each.distance(rows, width))[:NEAREST]
        weights = [1 / (each.distance(rows, width) ** 2 + 1e-3) for each in near]
        logs = sum(weight * math.log(each.rate) for weight, each in zip(weights, near, strict=True))
        return math.exp(logs / sum(weights))

    def learned(self, what: str) -> float:
        """By what predictions of this work are to be multiplied, as real runs have shown; 1 before any."""
        return float(_read(_file(self.name, "learned")).get(what, 1.0))

    def learn(self, what: str, ratio: float) -> None:
        """Remember that work took `ratio` times as long as its speeds alone foretold."""
        path = _file(self.name, "learned")
        _write(path, {**_read(path), what: min(max(ratio, BELIEVED[0]), BELIEVED[1])})

    def save(self) -> None:
        """Keep the speeds for other processes."""
        _write(_file(self.name, "speeds"), asdict(self))


def machine_name(dtype: torch.dtype) -> str:
    """What speeds depend on, for a CPU and a number format."""
    return f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {str(dtype).split('.')[-1]}"


def known_machine(name: str) -> Machine | None:
    """The machine of that name as it was measured before; None when it never was."""
    kept = _read(_file(name, "speeds"))
    try:
        if not kept:
            return None
        return Machine(name, tuple(Speed(**each) for each in kept["speeds"]), kept["starts"], kept["anew"])
    except (KeyError, TypeError):
        return None


def busy_seconds() -> float:
    """A clock that counts only this process's work, shared among its threads: other processes don't slow it."""
    return time.process_time() / torch.get_num_threads()


def resident_bytes() -> float:
    """Memory that this process holds now, mapped files included; its peak so far where the system tells only that."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_bytes()


def peak_bytes() -> float:
    """The most memory that this process has held so far; 0 where the system doesn't tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _file(name: str, what: str) -> Path:
    return cache_dir() / "machines" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{what}.json"


def _read(path: Path) -> dict[str, Any]:
    """What was kept; nothing when there is none, or it is damaged."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    """Keep values; a cache that can't be written costs the next measurement and no more."""
    try:
        with atomic_write(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
    except UsageError:
        return
