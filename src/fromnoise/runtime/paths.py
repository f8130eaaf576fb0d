"""Where things live, and how a file is written so that it is whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from fromnoise.runtime.errors import UsageError

PACKAGE = Path(__file__).resolve().parent.parent
EMBEDDED_MODEL = PACKAGE / "model"
JUDGE = PACKAGE / "evaluation" / "judge"


def cache_dir() -> Path:
    """The folder for what can be made again (FROMNOISE_CACHE, else the platform's)."""
    return Path(os.environ.get("FROMNOISE_CACHE") or platformdirs.user_cache_dir("fromnoise"))


@contextmanager
def atomic_write(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    Raises UsageError when the folder can't be written, or when `path` exists and `overwrite` is false.
    """
    temporary = _beside(path)
    try:
        yield temporary
        _publish(temporary, path, overwrite)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """UsageError unless a file can be written at `path`, whose folder is made: for what is written after long work."""
    _beside(path).unlink()


def _beside(path: Path) -> Path:
    """A new empty file in the same folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise UsageError(f"can't write in {path.parent}: {error.strerror or error}; choose another folder") from error
    os.close(handle)
    return Path(name)


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give the finished file its name and ordinary permissions; a link can't replace a file, a rename can."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    if overwrite:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise UsageError(f"{path} exists; choose another name or allow overwriting") from None
