"""Memory that was freed, handed back to the system."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""What glibc's mallopt calls its options."""

USUAL: Mapping[int, int] = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
"""glibc's own values once a process has freed something large."""


def give_back() -> None:
    """Have the C library return the pages that it keeps for later: between phases that need different sizes, the pages
    of one would else come on top of the other's. Takes half a millisecond; nothing happens where it isn't glibc.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def free_bytes() -> float:
    """Memory that this process may still take: what the system has, and what its control group leaves; infinite where
    neither tells."""
    left = [_group_left(Path("/sys/fs/cgroup"))]
    if (told := Path("/proc/meminfo")).exists():
        found = dict(line.split(":", 1) for line in told.read_text().splitlines())
        left.append(int(found.get("MemAvailable", "0 kB").split()[0]) * 1024.0)
    return min(left)


def _group_left(group: Path) -> float:
    """What the limit of a control group leaves; infinite without one."""
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return math.inf if limit == "max" else float(int(limit) - int(used))
    except (OSError, ValueError):
        return math.inf


@contextmanager
def kept() -> Iterator[None]:
    """While this lasts, what is freed stays with the process: large maps that come and go don't fetch fresh pages each
    time, which costs as much as computing them. Afterwards it goes back. Nothing happens where it isn't glibc.
    """
    if sys.platform != "linux" or (option := getattr(ctypes.CDLL(None), "mallopt", None)) is None:
        yield
        return
    give_back()
    option(MMAP_MAX, 0)
    option(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        for name, value in USUAL.items():
            option(name, value)
        give_back()
