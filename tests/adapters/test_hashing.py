"""Short hashes are those of kohya's trainer and the web UI."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from fromnoise.adapters import adapter_hash


def test_of_the_tensors_alone(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_file(tensors, one)
    save_file(tensors, other, {"ss_output_name": "fur", "ss_training_comment": "much longer than nothing"})
    data = save(tensors)
    payload = data[8 + int.from_bytes(data[:8], "little") :]
    assert payload == tensors["a"].numpy().tobytes() + tensors["b"].numpy().tobytes()
    for path in (one, other):
        assert adapter_hash(path, tensors_only=True) == hashlib.sha256(payload).hexdigest()[:12]
        assert adapter_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def test_of_a_pickle_and_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "ink.pt").write_bytes(b"a pickle")
    (tmp_path / "adapter_config.json").write_text("{}")
    expected = hashlib.sha256(b"a pickle").hexdigest()[:12]
    assert adapter_hash(tmp_path / "ink.pt", tensors_only=True) == expected
    assert adapter_hash(tmp_path) == expected


def test_a_file_that_changes_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "ink.pt"
    path.write_bytes(b"one")
    before = adapter_hash(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert adapter_hash(path) != before
    with pytest.raises(OSError, match="none"):
        adapter_hash(tmp_path / "none.safetensors")
