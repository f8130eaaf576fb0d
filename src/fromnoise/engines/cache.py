"""Compiled models on disk, so that the second run starts without compiling.

An entry is a folder named by the hash of all that the compiled model depends on. A list of its files with their
SHA-256 is checked when it is read; a damaged entry is taken away and made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note, warn
from fromnoise.runtime.paths import cache_dir

MANIFEST = "entry.json"
"""The list of an entry's files; it is written last, so an entry without one is no entry."""

Facts = Mapping[str, Any]
"""What a compiled model depends on, or what was found out about it: anything that JSON holds."""


@dataclass(frozen=True)
class Entry:
    """A compiled model on disk: its folder, and what was measured when it was made."""

    folder: Path
    facts: Facts


def default_folder() -> Path:
    """Where compiled models lie: `engines` in the cache folder."""
    return cache_dir() / "engines"


def key_of(facts: Facts) -> str:
    """The name of an entry: the first 32 hex digits of the SHA-256 of what it depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Store:
    """The compiled models in a folder. Several processes may use one."""

    folder: Path = field(default_factory=default_folder)

    def has(self, depends: Facts) -> bool:
        """True when there is an entry; it is not checked."""
        return (self._place(depends) / MANIFEST).is_file()

    def find(self, depends: Facts) -> Entry | None:
        """The entry, every file as it was written; None when there is none. A damaged one is removed and said so."""
        place = self._place(depends)
        if not place.exists():
            return None
        try:
            manifest = json.loads((place / MANIFEST).read_text())
            if all(_digest(place / name) == digest for name, digest in manifest["files"].items()):
                return Entry(place, manifest["facts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        warn(f"the compiled model in {place} is damaged; it is removed and compiled again")
        shutil.rmtree(place, ignore_errors=True)
        return None

    def make(self, depends: Facts, write: Callable[[Path], Facts]) -> Entry:
        """The entry that `write` makes: it fills a folder and gives back what it measured.

        Raises UsageError when the folder can't be written.
        """
        place = self._place(depends)
        with _becoming(place) as folder:
            facts = dict(write(folder))
            files = {str(each.relative_to(folder)): _digest(each) for each in _files(folder)}
            manifest = {"depends": dict(depends), "facts": facts, "files": files}
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        size = sum(each.stat().st_size for each in _files(place))
        note(f"the compiled model is kept in {place} ({size / 1e6:.0f} MB)")
        return Entry(place, facts)

    def _place(self, depends: Facts) -> Path:
        return self.folder / key_of(depends)


@contextmanager
def _becoming(place: Path) -> Iterator[Path]:
    """A temporary folder beside `place` that takes its place when the block ends well; the first to finish wins."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
    except OSError as error:
        raise UsageError(
            f"can't write in {place.parent}: {error.strerror or error}; set FROMNOISE_CACHE to a folder, "
            "or use --engine eager"
        ) from error
    try:
        yield folder
        if not place.exists():
            folder.rename(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
