"""The two hashes that the hub knows files by: SHA-256 for large ones (git-lfs), git's own SHA-1 for the others."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write, cache_dir, file_state

SHA256_DIGITS = 64
CHUNK = 4 * 2**20
SETTLED = 2 * 10**9
"""Nanoseconds after which no file system's clock mistakes one change for another."""

Told = Callable[[int], None]
"""Told how many bytes were just dealt with."""


def digest(path: Path, *, like: str = "0" * SHA256_DIGITS, told: Told = lambda count: None) -> str:
    """A file's hash in hex digits, by the algorithm whose digests are as long as `like`."""
    size = path.stat().st_size
    state = hashlib.sha256() if len(like) == SHA256_DIGITS else hashlib.sha1(f"blob {size}\0".encode())
    for chunk in chunks(path):
        state.update(chunk)
        told(len(chunk))
    return state.hexdigest()


def chunks(path: Path, start: int = 0) -> Iterator[bytes]:
    """A file's bytes from `start` on, a piece at a time."""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK):
            yield chunk


def is_whole(path: Path, size: int, expected: str, told: Told = lambda count: None) -> bool:
    """True when a file has that size and hash; False when it has not, or isn't there."""
    with suppress(FileNotFoundError):
        return path.stat().st_size == size and digest(path, like=expected, told=told) == expected
    return False


def remembered_digest(path: Path, *, told: Told = lambda count: None) -> str:
    """A file's SHA-256, computed once and remembered in the cache while path, file, size and times of change stay.

    A file that changed just now is not remembered: its clock may be too coarse to show the next change.
    """
    known = {"path": str(path.resolve()), "state": list(file_state(path))}
    place = cache_dir() / "hashes" / f"{hashlib.sha256(known['path'].encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        entry = json.loads(place.read_text(encoding="utf-8"))
        if {**known, "sha256": entry["sha256"]} == entry:
            return entry["sha256"]
    found = digest(path, told=told)
    if time.time_ns() - path.stat().st_mtime_ns > SETTLED:
        _remember(place, {**known, "sha256": found})
    return found


def _remember(place: Path, entry: dict[str, Any]) -> None:
    with suppress(UsageError, OSError), atomic_write(place, overwrite=True) as temporary:
        temporary.write_text(json.dumps(entry), encoding="utf-8")
