"""Where things live, and how a file is written so that it is whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from fromnoise.runtime.errors import UsageError

PACKAGE = Path(__file__).resolve().parent.parent
EMBEDDED_MODEL = PACKAGE / "model"
JUDGE = PACKAGE / "evaluation" / "judge"

FEW_STEPS = "fast.safetensors"
"""In a model's folder: the LoRA that makes it draw in a few steps."""

TINY = "vae_tiny"
"""In a model's folder: the tiny autoencoder that decodes such drawings, in diffusers' layout."""


class NameTakenError(UsageError):
    """There is a file of this name already."""


def cache_dir() -> Path:
    """The folder for what can be made again (FROMNOISE_CACHE, else the platform's)."""
    return Path(os.environ.get("FROMNOISE_CACHE") or platformdirs.user_cache_dir("fromnoise"))


def file_state(path: Path) -> tuple[int, ...]:
    """What changes when a file, or one of a folder's, is written anew, whatever its clock says. Raises OSError."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    facts = [each.stat() for each in files]
    return tuple(number for each in facts for number in (each.st_ino, each.st_mtime_ns, each.st_ctime_ns, each.st_size))


@contextmanager
def atomic_write(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    Raises UsageError when the folder can't be written, NameTakenError when `path` exists and `overwrite` is false.
    """
    temporary = _beside(path)
    try:
        yield temporary
        _publish(temporary, path, overwrite)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, overwrite: bool = False) -> Path:
    """Write a file's bytes and give back its path; raises as `atomic_write`."""
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)
    return path


def require_writable(path: Path) -> None:
    """UsageError unless a file can be written at `path`, whose folder is made: for what is written after long work."""
    _beside(path).unlink()


def require_name(path: Path) -> None:
    """UsageError for a name that no file in its folder can have, because it is too long for instance."""
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"can't write {_shortened(path.name)}: {why}; choose another name") from error


def _beside(path: Path) -> Path:
    """A new empty file in the same folder, its own name short whatever that of `path` is."""
    require_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:32]}-", suffix=path.suffix)
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
        _link(temporary, path)
    except FileExistsError:
        raise NameTakenError(f"{path} exists; choose another name or allow overwriting") from None


def _link(temporary: Path, path: Path) -> None:
    """The file under a second name; FileExistsError when that is taken.

    Memory cards and some network folders know no second names: the name is reserved there, and the file moved to it.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        path.touch(exist_ok=False)
        temporary.replace(path)


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:40]}…"
