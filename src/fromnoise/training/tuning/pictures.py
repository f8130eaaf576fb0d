"""The pictures that a person brings, and what they say about them: folders, captions beside, tables, datasets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from fromnoise.images.opening import open_image, read_picture, upright_rgb
from fromnoise.runtime.errors import UsageError
from fromnoise.training.tuning.stored import Stored, is_dataset

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
METADATA = ("metadata.jsonl", "metadata.csv")
"""The tables that Hugging Face's `imagefolder` looks for."""

FILE_FIELDS, TEXT_FIELDS = ("file_name", "image", "file"), ("text", "caption", "prompt")
"""What a table may call the picture and its caption, the first that is there."""

UTF_8 = "utf-8-sig"
"""With or without the mark that Excel and Notepad begin a file with."""


@dataclass(frozen=True)
class Captioned:
    """A picture and its caption, None where nobody wrote one.

    `path` is its file, or the name of a dataset's row, which `encoded` gives the bytes of. `nearer` (n, share) is a
    view of a share of each side, cut from a corner: n counts the corners.
    """

    path: Path
    caption: str | None = None
    nearer: tuple[int, float] | None = None
    encoded: Callable[[], bytes] | None = None

    def open(self) -> Image.Image:
        """The picture upright and in RGB; UsageError naming the file when it is damaged."""
        data = read_picture(self.path) if self.encoded is None else self.encoded()
        whole = upright_rgb(open_image(data, str(self.path)))
        return whole if self.nearer is None else cut(whole, *self.nearer)


def read_captioned(sources: Sequence[Path]) -> list[Captioned]:
    """The pictures of files, folders and tables (.jsonl, .csv), in order.

    A folder's captions are those of its metadata table, of the dataset that it is, or of the .txt beside each picture.
    Raises UsageError where something is missing, and when there is no picture at all.
    """
    found = [each for source in sources for each in _read(Path(source).expanduser())]
    if not found:
        raise UsageError(f"no pictures in {', '.join(map(str, sources))}; PNG, JPEG and WebP files are looked for")
    return found


def require_captions(pictures: Iterable[Captioned], advice: str) -> None:
    """UsageError, ending in the advice, for the first picture without a caption."""
    for each in pictures:
        if not each.caption:
            remedy = "fill in its text" if each.encoded else f"write {each.path.stem}.txt beside it"
            raise UsageError(f"{each.path} has no caption; {remedy}{advice}")


def cut(picture: Image.Image, corner: int, share: float) -> Image.Image:
    """A share of each side, from one of the four corners, as large as the whole was."""
    width, height = round(picture.width * share), round(picture.height * share)
    left, top = (picture.width - width) * (corner % 2), (picture.height - height) * (corner // 2 % 2)
    return picture.crop((left, top, left + width, top + height)).resize(picture.size, Image.Resampling.LANCZOS)


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at (width, height); what the shape leaves over is cut evenly from two edges."""
    return picture if picture.size == size else ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def _read(source: Path) -> list[Captioned]:
    if not source.exists():
        raise UsageError(f"there is nothing at {source}; give pictures, a folder of them, or a .jsonl or .csv file")
    if source.is_dir():
        return _folder(source)
    if source.suffix.lower() in _TABLES:
        return list(_table(source))
    return [_beside(source)]


def _folder(folder: Path) -> list[Captioned]:
    for name in METADATA:
        if (folder / name).is_file():
            return list(_table(folder / name))
    if is_dataset(folder):
        return _rows(Stored(folder, TEXT_FIELDS))
    return [_beside(each) for each in sorted(folder.iterdir()) if each.suffix.lower() in SUFFIXES]


def _rows(dataset: Stored) -> list[Captioned]:
    return [
        Captioned(dataset.folder / f"{dataset.split}[{row}]", _caption(text), encoded=partial(dataset.picture, row))
        for row, text in enumerate(dataset.texts)
    ]


def _beside(path: Path) -> Captioned:
    """A picture with the caption of the text file that has its name."""
    text = path.with_suffix(".txt")
    try:
        caption = _caption(text.read_text(encoding=UTF_8)) if text.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the caption {text}: {error}") from error
    return Captioned(path, caption)


def _caption(text: Any) -> str | None:
    """A text on one line; None where it says nothing."""
    return " ".join(str(text).split()) or None if text else None


def _table(path: Path) -> Iterator[Captioned]:
    try:
        rows = _TABLES[path.suffix.lower()](path.read_text(encoding=UTF_8))
        for number, row in enumerate(rows, 1):
            yield _row(path, number, row)
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"can't read {path}: {error}") from error


def _row(path: Path, number: int, row: Mapping[str, Any]) -> Captioned:
    file = next((row[name] for name in FILE_FIELDS if row.get(name)), None)
    if not isinstance(file, str):
        raise UsageError(f"{path}: entry {number} names no picture; it needs the field {FILE_FIELDS[0]}")
    picture = path.parent / file
    if not picture.is_file():
        raise UsageError(f"{path}: entry {number} names {file}, which is not there")
    text = next((row[name] for name in TEXT_FIELDS if row.get(name)), None)
    return Captioned(picture, _caption(text))


def _lines(text: str) -> list[Mapping[str, Any]]:
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]  # strings may hold other ends of lines
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line should be a JSON object")
    return rows


_TABLES = {".jsonl": _lines, ".csv": lambda text: list(csv.DictReader(io.StringIO(text)))}
