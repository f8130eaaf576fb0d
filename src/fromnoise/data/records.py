"""What a dataset folder says about its pictures: one record a picture, and one manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from fromnoise.runtime.errors import FromnoiseError

__all__ = [
    "FORMAT",
    "MANIFEST",
    "METADATA",
    "PICTURES",
    "PIXELS",
    "PIXELS_HASH",
    "WORDS",
    "Manifest",
    "Picture",
    "SourceReport",
    "Word",
    "from_json",
    "to_lines",
]

T = TypeVar("T")

FORMAT = 1
"""The version of the folder's layout; a reader refuses any other."""

PICTURES = "pictures"
METADATA = "metadata.jsonl"
MANIFEST = "manifest.json"
WORDS = "words.jsonl"
PIXELS = "pixels.npy"
PIXELS_HASH = "pixels.json"


@dataclass(frozen=True)
class Picture:
    """One picture of a dataset.

    `concept` is a sequence of hex code points; `cluster` is shared by near-identical concepts; `drawing_group` by
    the families whose drawings of this concept are near duplicates; `split` is "train" or "held_out", `judge_fold`
    "train" or "test"; `flip` says that the mirrored picture means the same; `sha256` is that of the PNG file.
    """

    file_name: str
    id: str
    concept: str
    label: str
    group: str
    subgroup: str
    cluster: str
    style: str
    family: str
    drawing_group: str
    source: str
    author: str
    licence: str
    sha256: str
    split: str
    judge_fold: str
    flip: bool
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Word:
    """One meaning of WordNet's nouns: its words, and its definition as WordNet writes it."""

    lexname: str
    lemmas: tuple[str, ...]
    gloss: str


@dataclass(frozen=True)
class SourceReport:
    """What became of one source: how many pictures it gave, or why it was skipped."""

    name: str
    version: str
    integrity: str
    author: str
    licence: str
    link: str
    attribution: str = ""
    style: str = ""
    pictures: int = 0
    skipped: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a dataset folder holds and where it came from. `metadata_sha256` is the metadata file's."""

    format: int
    side: int
    concepts: int
    pictures: int
    splits: Mapping[str, int]
    judge_folds: Mapping[str, int]
    styles: Mapping[str, int]
    sources: tuple[SourceReport, ...]
    metadata_sha256: str

    def to_json(self) -> str:
        """The manifest as indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """The manifest of its JSON. Raises FromnoiseError for one of another format."""
        data = json.loads(text)
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise FromnoiseError(f"the dataset's format is {found}, expected {FORMAT}; build it again")
        sources = tuple(from_json(SourceReport, each) for each in data.pop("sources"))
        return cls(sources=sources, **data)


def from_json(cls: type[T], data: Mapping[str, Any]) -> T:
    """A record of the dataclass `cls`, lists as tuples. Raises FromnoiseError when a field is missing."""
    try:
        values = {field.name: data[field.name] for field in fields(cls)}  # type: ignore[arg-type]
    except KeyError as missing:
        raise FromnoiseError(f"the dataset lacks the field {missing}; build it again") from None
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def to_lines(records: Iterable[Any]) -> str:
    """Dataclass records as JSON lines."""
    return "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
