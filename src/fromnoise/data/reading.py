"""Read a dataset folder: records at once, pictures when they are asked for."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from fromnoise.data.records import MANIFEST, METADATA, PIXELS, PIXELS_HASH, WORDS, Manifest, Picture, Word, from_json
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import atomic_write

__all__ = ["Dataset", "load_dataset"]


@dataclass(frozen=True)
class Dataset:
    """A dataset folder. Indices are positions in `pictures`, whose order the folder fixes."""

    folder: Path
    manifest: Manifest
    pictures: tuple[Picture, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def indices(
        self, *, split: str | None = None, judge_fold: str | None = None, style: str | None = None
    ) -> list[int]:
        """The pictures of a split, a judges' fold and a style; None does not ask."""
        wanted = {"split": split, "judge_fold": judge_fold, "style": style}
        asked = {name: value for name, value in wanted.items() if value is not None}
        return [
            index
            for index, picture in enumerate(self.pictures)
            if all(getattr(picture, name) == value for name, value in asked.items())
        ]

    def pixels(self, indices: Iterable[int]) -> np.ndarray:
        """The pictures at `indices`, (N, 128, 128, 3) uint8 RGB, from the PNG files.

        Raises FromnoiseError for a file that is missing or not the one that was built.
        """
        side = self.manifest.side
        found = [self._decode(self.pictures[index]) for index in indices]
        return np.stack(found) if found else np.empty((0, side, side, 3), np.uint8)

    @cached_property
    def all_pixels(self) -> np.ndarray:
        """Every picture in order, (N, 128, 128, 3) uint8, read-only and mapped from `pixels.npy`.

        The file is made the first time, and again whenever its hash or the pictures' have changed.
        """
        path = self.folder / PIXELS
        if not self._pixels_are_good(path):
            self._write_pixels(path)
        return np.load(path, mmap_mode="r")

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """WordNet's nouns, to learn words from that no caption holds."""
        return tuple(from_json(Word, json.loads(line)) for line in _read(self.folder / WORDS).splitlines())

    def _decode(self, picture: Picture) -> np.ndarray:
        path = self.folder / picture.file_name
        try:
            png = path.read_bytes()
        except OSError:
            raise FromnoiseError(f"the dataset lacks {path}; build it again") from None
        if hashlib.sha256(png).hexdigest() != picture.sha256:
            raise FromnoiseError(f"{path} is not the picture that was built; build the dataset again")
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def _pixels_are_good(self, path: Path) -> bool:
        """True when the cache is of these pictures and holds the bytes that were written."""
        try:
            note = json.loads((self.folder / PIXELS_HASH).read_text(encoding="utf-8"))
            return note == self._pixels_note(_file_hash(path))
        except (OSError, ValueError):
            return False

    def _write_pixels(self, path: Path) -> None:
        buffer = io.BytesIO()
        np.save(buffer, self.pixels(range(len(self))))
        with atomic_write(path, overwrite=True) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        with atomic_write(self.folder / PIXELS_HASH, overwrite=True) as temporary:
            temporary.write_text(json.dumps(self._pixels_note(_file_hash(path))), encoding="utf-8")

    def _pixels_note(self, pixels_sha256: str) -> dict[str, str]:
        """What the cache was made of, and its own hash."""
        pictures = hashlib.sha256("".join(each.sha256 for each in self.pictures).encode()).hexdigest()
        return {"pictures": pictures, "sha256": pixels_sha256}


def load_dataset(folder: Path) -> Dataset:
    """The dataset in `folder`.

    Raises UsageError when there is none, FromnoiseError when it is damaged or of another format.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise UsageError(f"no dataset in {folder}; build one with: fromnoise dataset {folder}")
    try:
        manifest = Manifest.parse(_read(folder / MANIFEST))
        metadata = _read(folder / METADATA)
        pictures = tuple(from_json(Picture, json.loads(line)) for line in metadata.splitlines())
    except (ValueError, TypeError) as error:
        raise FromnoiseError(f"the dataset in {folder} is damaged ({error}); build it again") from error
    if hashlib.sha256(metadata.encode()).hexdigest() != manifest.metadata_sha256:
        raise FromnoiseError(f"{folder / METADATA} was changed or cut short; build the dataset again")
    return Dataset(folder, manifest, pictures)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FromnoiseError(f"can't read {path} ({error}); build the dataset again") from error


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
