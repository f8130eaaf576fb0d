"""A hash is computed once, and again when its file is another."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fromnoise.hub import hashing
from fromnoise.hub.hashing import remembered_digest

OLD = 1_600_000_000


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FROMNOISE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"one")
    os.utime(path, (OLD, OLD))
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_bytes(path: Path) -> int:
    """How many bytes of the file a call reads."""
    told: list[int] = []
    remembered_digest(path, told=told.append)
    return sum(told)


def test_the_second_time_nothing_is_read(weights: Path):
    assert remembered_digest(weights) == sha256(b"one")
    assert read_bytes(weights) == 0
    assert remembered_digest(weights) == sha256(b"one")


@pytest.mark.parametrize(("content", "changed"), [(b"two", OLD + 1), (b"three", OLD)])
def test_a_changed_file_is_read_again(weights: Path, content: bytes, changed: int):
    remembered_digest(weights)
    weights.write_bytes(content)
    os.utime(weights, (changed, changed))
    assert remembered_digest(weights) == sha256(content)


def test_another_file_of_the_same_size_and_time_is_read(weights: Path):
    remembered_digest(weights)
    (weights.parent / "other").write_bytes(b"two")
    os.utime(weights.parent / "other", (OLD, OLD))
    (weights.parent / "other").replace(weights)
    assert remembered_digest(weights) == sha256(b"two")


def test_a_file_that_changed_just_now_is_not_remembered(weights: Path):
    os.utime(weights)
    remembered_digest(weights)
    assert read_bytes(weights) == 3


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"sha256": "0000"}'])
def test_a_damaged_memory_is_no_memory(weights: Path, content: bytes):
    remembered_digest(weights)
    (entry,) = (hashing.cache_dir() / "hashes").iterdir()
    entry.write_bytes(content)
    assert remembered_digest(weights) == sha256(b"one")


def test_a_cache_that_cant_be_written_is_no_failure(weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FROMNOISE_CACHE", str(weights / "below a file"))
    assert remembered_digest(weights) == sha256(b"one")
