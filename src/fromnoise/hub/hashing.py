"""The two hashes that the hub knows files by: SHA-256 for large ones (git-lfs), git's own SHA-1 for the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

SHA256_DIGITS = 64
CHUNK = 4 * 2**20

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
