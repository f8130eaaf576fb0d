"""Short hashes of adapters' files, as pictures carry them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from fromnoise.runtime.paths import file_state

DIGITS = 12
"""Hex digits of a hash that are kept, as in the AUTOMATIC1111 web UI's `Lora hashes` and `TI hashes`."""

WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
"""What a folder's weights end in, the preferred first."""

CHUNK = 4 * 2**20


def adapter_hash(path: Path, *, tensors_only: bool = False) -> str:
    """The first 12 hex digits of a file's SHA-256, or of its weights' when it is a folder.

    With `tensors_only` the header of a .safetensors file is left out, so that a change of its metadata changes nothing
    (kohya's and the web UI's `addnet_hash_safetensors`). Raises OSError when it can't be read.
    """
    file = _weights(path)
    return _hashed(file, tensors_only and file.suffix == ".safetensors", file_state(file))


@lru_cache(maxsize=256)
def _hashed(file: Path, tensors_only: bool, changed: tuple[int, ...]) -> str:
    """Of a file in the state that it was `changed` to, so that one that is changed again is hashed again."""
    state = hashlib.sha256()
    with file.open("rb") as stream:
        if tensors_only:
            stream.seek(8 + int.from_bytes(stream.read(8), "little"))
        while chunk := stream.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()[:DIGITS]


def _weights(path: Path) -> Path:
    """The file itself, or the first of a folder's files of weights."""
    if not path.is_dir():
        return path
    files = [each for each in sorted(path.iterdir()) if each.suffix in WEIGHTS]
    return min(files, key=lambda each: WEIGHTS.index(each.suffix), default=path)
