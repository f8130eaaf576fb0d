"""Fetch the pictures of these examples into a folder: pixel-art monsters, and a creature that the model never saw.

    python examples/tuning/pictures.py pictures/

`monsters/` has the monster tiles of Dungeon Crawl Stone Soup 0.28.0 with captions from their names, `six/` six of them
without captions, `orca/` two drawings of a whale that is not among the model's training concepts. `items/` (things
of the same game) and `glyphs/` (white on black, from game-icons.net) are two more styles for
`benchmarks/tuning_gap.py`. The tiles are
"mostly CC0" by their own licence file, some older ones are less clear: they are fetched, and no part of this
repository.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from fromnoise.data.concepts import read_emojibase
from fromnoise.data.drawings import Drawing, read_drawings
from fromnoise.data.fetching import fetch, members
from fromnoise.data.rendering import SIDE, render, require_renderer
from fromnoise.data.sources import PICTURE_SETS, WORD_LISTS, Package
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import cache_dir

TILES = "crawl_0.28.0.orig.tar.xz"
SHA256 = "5a6be168f8888b84bdb199184ca20bd8636f77ba7e9e0124ebee8850092f2f47"
DEBIAN = "http://deb.debian.org/debian"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

LEFT_OUT = frozenset(
    {
        "tentacles",
        "panlord",
        "player",
        "mutantbeast",
        "vault",
        "sprint",
        "simulacra",
        "spectrals",
        "bound_souls",
        "statues",
        "unique",
    }
)
"""Folders of tiles that show parts of monsters, persons of the game, or one monster many times in one colour."""

PNG = b"\x89PNG"
"""How a picture's file begins; one or two of the tiles are no pictures."""

STYLES = {"items": "dungeonware", "glyphs": "stencil"}
"""What the styles beside the monsters' are called."""

SIX = ("fire_dragon", "bullfrog", "octopode", "scorpion", "golden_dragon", "polar_bear")


ITEMS = frozenset({"armour", "bardings", "food", "headgear", "misc", "shields", "staff", "weapon", "ranged"})
"""Folders of tiles whose names say what they show."""

GLYPHS = Package(
    name="@iconify-json/game-icons",
    version="1.2.4",
    integrity="sha512-/HDDZxowXgDJcOEwPspUCq5RuDdl25OyZKdtxqqiPJQNTrWIym7r4StLzIVs77DyNzOWWhH5wDqwYR3WHeDfkg==",
    author="Lorc, Delapouite and others",
    licence="CC-BY-3.0",
    link="https://game-icons.net",
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 512 512" width="512" height="512">{}</svg>'
SOME = 200
"""Glyphs that are taken, of 4,000."""


def tiles(cache: Path) -> Path:
    """The game's source archive, fetched by apt-get from Debian's mirror where it is not in `cache` yet.

    FromnoiseError where apt-get can't, saying where to get the file by hand, and for another file than the pinned one.
    """
    path = cache / TILES
    if not path.exists():
        _apt(path)
    if not path.exists():
        raise FromnoiseError(f"apt-get could not fetch {TILES}; put it from {DEBIAN}/pool/main/c/crawl/ into {cache}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise FromnoiseError(f"{path} is not the file that was pinned; remove it and try again")
    return path


def monsters(archive: Path) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of every whole monster: 32 pixels a side, enlarged without smoothing, over white."""
    with tarfile.open(archive, "r:xz") as tar:
        for member in tar:
            folders = member.name.split("/")
            if "/rltiles/mon/" in member.name and folders[-1].endswith(".png") and LEFT_OUT.isdisjoint(folders):
                file = tar.extractfile(member)
                assert file is not None
                yield Path(member.name).stem, enlarged(Image.open(io.BytesIO(file.read())).convert("RGBA"))


def items(archive: Path) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of every thing of the game, enlarged as the monsters are."""
    with tarfile.open(archive, "r:xz") as tar:
        for member in tar:
            folders = member.name.split("/")
            file = tar.extractfile(member) if "/rltiles/item/" in member.name and folders[-2] in ITEMS else None
            if file is not None and (content := file.read()).startswith(PNG):
                yield Path(member.name).stem, enlarged(Image.open(io.BytesIO(content)).convert("RGBA"))


def glyphs(archive: Path) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of some glyphs, by chance that is always the same: white on black, as their site shows them."""
    content = {PurePosixPath(name).name: content for name, content in members(archive, ".json")}
    bodies = {name: icon["body"] for name, icon in json.loads(content["icons.json"])["icons"].items()}
    for name in random.Random(0).sample(sorted(bodies), SOME):
        yield name.replace("-", "_"), ImageOps.invert(render(Drawing("glyph", "", name, SVG.format(bodies[name]))))


def enlarged(tile: Image.Image) -> Image.Image:
    """A tile in the middle of a picture of the model's size."""
    times = max(1, SIDE // max(tile.size))
    big = tile.resize((tile.width * times, tile.height * times), Image.Resampling.NEAREST)
    big.thumbnail((SIDE, SIDE))
    canvas = Image.new("RGBA", (SIDE, SIDE), "white")
    canvas.alpha_composite(big, ((SIDE - big.width) // 2, (SIDE - big.height) // 2))
    return canvas.convert("RGB")


def named(name: str) -> str:
    """What a tile shows: `elephant_slug2` is "an elephant slug"."""
    words = re.sub(r"\d+$", "", name).replace("_", " ").strip()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def drawings(label: str, cache: Path) -> Iterator[tuple[str, Image.Image]]:
    """Every set's drawing of a thing, whether the model was trained on it or not."""
    words = read_emojibase(fetch(WORD_LISTS["emojibase"], cache))
    for each in PICTURE_SETS:
        for drawing in read_drawings(each, fetch(each.package, cache), words):
            if words.concepts[drawing.concept].label == label:
                yield each.style, render(drawing)


def main(folder: Path) -> None:
    """Write the folders. UsageError where what renders the drawings is missing."""
    require_renderer()
    cache = cache_dir() / "sources"
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("monsters", "six", "orca", "items", "glyphs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, picture in monsters(tiles(cache)):
        picture.save(folder / "monsters" / f"{name}.png")
        (folder / "monsters" / f"{name}.txt").write_text(f"{named(name)}, pixelart style\n")
        if name in SIX:
            picture.save(folder / "six" / f"{name}.png")
    for style, found in (("items", items(tiles(cache))), ("glyphs", glyphs(fetch(GLYPHS, cache)))):
        for name, picture in found:
            picture.save(folder / style / f"{name}.png")
            (folder / style / f"{name}.txt").write_text(f"{named(name)}, {STYLES[style]} style\n")
    for style, picture in drawings("orca", cache):
        picture.save(folder / "orca" / f"{style}.png")
    print(folder)


def _apt(path: Path) -> None:
    """Ask apt-get with lists of its own, so that the system's stay as they are; what else it lacks does not matter."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "sources.list").write_text(f"deb-src [signed-by={KEYS}] {DEBIAN} trixie main\n")
        (place / "lists" / "partial").mkdir(parents=True)
        options = [
            "-q",
            "-o",
            f"Dir::Etc::SourceList={place / 'sources.list'}",
            "-o",
            "Dir::Etc::SourceParts=/dev/null",
        ]
        options += ["-o", f"Dir::State::Lists={place / 'lists'}", "-o", f"Dir::Cache={place}"]
        for words in (["update"], ["source", "--download-only", "crawl=2:0.28.0-1.1"]):
            subprocess.run(["apt-get", *options, *words], cwd=place, check=False, capture_output=True)
        if (place / TILES).exists():
            path.write_bytes((place / TILES).read_bytes())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "pictures"))
    except FromnoiseError as error:
        sys.exit(f"error: {error}")
