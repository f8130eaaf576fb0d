"""Tensors and numbers in a file that torch writes and reads: whole or absent, and checked before they are used."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import atomic_write

UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""What a file that is cut short, changed or no such file at all makes its readers say."""


class Damaged(FromnoiseError):  # noqa: N818
    """A file isn't what was written."""


def save(path: Path, value: Any) -> None:
    """Write tensors, numbers, text and collections of them; what was there stays until the new file is on the disk.

    FromnoiseError where it can't be written, on a full disk say.
    """
    try:
        with atomic_write(path, overwrite=True) as temporary:
            torch.save(value, temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
    except (OSError, RuntimeError) as error:  # torch names no cause of what fails in its own writer
        why = error.strerror if isinstance(error, OSError) else "the disk may be full"
        raise FromnoiseError(f"can't write {path}: {why}; make room, then go on with --resume") from error


def read(path: Path, advice: str = "remove it, or give another --run") -> Any:
    """What `save` wrote; Damaged where the file isn't whole. Torch doesn't compare the checksums in it, this does."""
    damaged = Damaged(f"{path} is damaged; {advice}")
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed is None:
            return torch.load(path, weights_only=True)
    except UNREADABLE as error:
        raise damaged from error
    raise damaged
