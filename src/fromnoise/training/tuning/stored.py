"""Hugging Face datasets on disk: what `save_to_disk` wrote, and folders of parquet files. Read by their own library."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fromnoise.images.opening import read_picture
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.streams import is_terminal

SAVED, SEVERAL = "state.json", "dataset_dict.json"
"""What `save_to_disk` leaves in the folder of one split, and in the folder of several."""

TRAIN = "train"


def is_dataset(folder: Path) -> bool:
    """Whether the folder is such a dataset."""
    return _saved(folder) or any(next(folder.glob(each), None) for each in ("*.parquet", "*/*.parquet"))


class Stored:
    """The rows of a dataset's training split (its only one, where it has one): pictures as they are encoded, texts.

    `texts` has what each row says, None for each where no column does. Raises UsageError for a folder that can't be
    read, without a training split or without pictures.
    """

    def __init__(self, folder: Path, text_fields: tuple[str, ...]) -> None:
        library = _library()
        self.folder = folder
        self.split, rows = _split(folder, _opened(library, folder))
        kinds = rows.features
        pictures = [name for name, kind in kinds.items() if isinstance(kind, library.Image)]
        if not pictures:
            raise UsageError(
                f"{folder} has no column of pictures, but {', '.join(kinds)}; make one with datasets.Image"
            )
        self._pictures = rows.cast_column(pictures[0], library.Image(decode=False)).select_columns(pictures[0])
        named = [name for name in text_fields if name in kinds] or _texts(kinds)
        self.texts: list[Any] = list(rows[named[0]]) if named else [None] * len(rows)

    def picture(self, row: int) -> bytes:
        """The picture's file as it was put in; UsageError where it is only named and isn't there."""
        (stored,) = self._pictures[row].values()
        if not stored:
            raise UsageError(f"{self.folder}: row {row} of {self.split} has no picture; filter it out")
        return stored["bytes"] or read_picture(self.folder / stored["path"])


def _saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (SAVED, SEVERAL))


def _library() -> Any:
    try:
        import datasets
    except ImportError as missing:
        raise UsageError(
            "a dataset of Hugging Face's is read by their library: pip install 'fromnoise[datasets]'"
        ) from missing
    if not is_terminal(sys.stderr):
        datasets.disable_progress_bars()
    return datasets


def _opened(library: Any, folder: Path) -> Any:
    """One split's rows, or several splits by name."""
    from pyarrow.lib import ArrowException

    try:
        return library.load_from_disk(str(folder)) if _saved(folder) else library.load_dataset(str(folder))
    except (OSError, ValueError, KeyError, ArrowException, library.exceptions.DatasetsError) as error:
        raise UsageError(f"can't read the dataset {folder}: {error}") from error


def _split(folder: Path, found: Any) -> tuple[str, Any]:
    """The rows to learn from, and what to call them."""
    if not isinstance(found, dict):
        return "rows", found
    splits: dict[str, Any] = dict(found)
    name = TRAIN if TRAIN in splits or len(splits) != 1 else next(iter(splits))
    if name not in splits:
        raise UsageError(f"{folder} has the splits {', '.join(splits)} and no {TRAIN}; give the folder of one of them")
    return name, splits[name]


def _texts(kinds: Mapping[str, Any]) -> list[str]:
    """The one column of text, if there is just one."""
    found = [name for name, kind in kinds.items() if getattr(kind, "dtype", "") in ("string", "large_string")]
    return found if len(found) == 1 else []
