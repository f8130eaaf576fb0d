"""Find the drawings of concepts in a picture set's archive, by code points or by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from fromnoise.data.codepoints import normalise, squash
from fromnoise.data.concepts import Emojibase
from fromnoise.data.fetching import members
from fromnoise.data.sources import PictureSet

__all__ = ["READERS", "Drawing", "Names", "read_drawings"]


@dataclass(frozen=True)
class Drawing:
    """One picture before rendering: its concept, its name in the set, and SVG text or an encoded bitmap."""

    style: str
    concept: str
    name: str
    content: str | bytes


class Names:
    """From what an icon set calls a drawing to code points: its own table first, the official label next."""

    def __init__(self, emojibase: Emojibase, chars: Mapping[str, str] = MappingProxyType({})) -> None:
        """`chars` maps code points to icon names, as an icon set's `chars.json` does."""
        self._names = {squash(name): code_points for name, code_points in emojibase.names}
        self._names.update({squash(name): normalise(key) for key, name in chars.items()})
        self._own = _own_names()

    def __call__(self, style: str, name: str) -> str | None:
        """The code points of what the drawing shows, or None for no concept that is known by this name."""
        for spelling in (name, re.sub(r"-\d$", "", name)):
            found = self._own.get((style, spelling)) or self._names.get(squash(spelling))
            if found:
                return found
        return None


def read_drawings(picture_set: PictureSet, archive: Path, emojibase: Emojibase) -> list[Drawing]:
    """Every drawing of a wanted concept in the set, in order of name."""
    drawings = READERS[picture_set.reader](picture_set.style, archive, emojibase)
    return sorted((each for each in drawings if each.concept in emojibase.concepts), key=lambda each: each.name)


def _read_iconify(style: str, archive: Path, emojibase: Emojibase) -> Iterator[Drawing]:
    """Icons of an @iconify-json package: bodies by name in `icons.json`, code points in `chars.json` if it has any."""
    content = {PurePosixPath(name).name: content for name, content in members(archive, ".json")}
    icons = json.loads(content["icons.json"])
    chars = json.loads(content["chars.json"])
    names = Names(emojibase, chars)
    for name, icon in icons["icons"].items():
        concept = names(style, name)
        if concept and not icon.get("hidden"):
            yield Drawing(style, concept, name, _svg(icons, icon))


def _read_assets(style: str, archive: Path, emojibase: Emojibase) -> Iterator[Drawing]:
    """Bitmaps named by their code points."""
    for path, content in members(archive, ".webp"):
        name = PurePosixPath(path).stem
        concept = normalise(name) if re.fullmatch(r"[0-9a-f]+(-[0-9a-f]+)*", name) else ""
        if concept in emojibase.concepts:
            yield Drawing(style, concept, name, content)


READERS: Mapping[str, Callable[[str, Path, Emojibase], Iterator[Drawing]]] = MappingProxyType(
    {"iconify": _read_iconify, "assets": _read_assets}
)


def _svg(icons: Mapping[str, Any], icon: Mapping[str, Any]) -> str:
    """A whole SVG document from an icon's body, with its box (see iconify's "IconifyJSON" format)."""
    left, top, width, height = (icon.get(key, icons.get(key, default)) for key, default in _BOX)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


_BOX: Sequence[tuple[str, int]] = (("left", 0), ("top", 0), ("width", 16), ("height", 16))


def _own_names() -> dict[tuple[str, str], str]:
    """The hand-made table `names.tsv`: what (set, name) shows."""
    text = files("fromnoise.data").joinpath("names.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {(style, name): code_points for style, name, code_points in rows}
