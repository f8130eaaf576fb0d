"""A whole small world: the word lists and five picture sets, three concepts each, as archives in a cache."""

import base64
import hashlib
import io
import json
import tarfile
from dataclasses import replace

import pytest
from hypothesis import settings
from PIL import Image

from fromnoise.data import building
from fromnoise.data.sources import PICTURE_SETS, WORD_LISTS, Package, PictureSet

# A busy machine makes no test wrong.
settings.register_profile("data", deadline=None, max_examples=50)
settings.load_profile("data")

THINGS = {"1f34e": "red apple", "1f987": "bat", "1f558": "nine o’clock"}
COLOURS = {"noto": "#d00", "noto-v1": "#0a0", "twemoji": "#00d", "fluent-flat": "#dd0", "fluent-3d": (0, 200, 200)}

DATA_NOUN = """\
  1 a licence line
00000001 13 n 01 edible_fruit 0 000 | edible reproductive body of a seed plant
00000002 13 n 02 apple 0 orchard_apple 0 001 @ 00000001 n 0000 | fruit with red or yellow skin; "an apple a day"
00000003 06 n 01 bat 0 000 | a club used for hitting a ball
00000004 05 n 02 bat 0 chiropteran 0 000 | nocturnal mouselike mammal (a flying one)
00000005 06 n 01 clock 0 000 | a timepiece that shows the time of day
"""
INDEX_NOUN = """\
apple n 1 1 @ 1 0 00000002
bat n 2 0 2 0 00000003 00000004
chiropteran n 1 0 1 0 00000004
clock n 1 0 1 0 00000005
edible_fruit n 1 0 1 0 00000001
orchard_apple n 1 1 @ 1 0 00000002
"""


def pack(cache, package, contents):
    """Write a package's archive to the cache; the package with its hash."""
    path = cache / package.archive
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return replace(package, integrity=f"sha512-{digest}")


def entry(code_points, label, group, subgroup, tags):
    hexcode = code_points.upper()
    return {"hexcode": hexcode, "label": label, "group": group, "subgroup": subgroup, "tags": tags}


def emojibase_files():
    table = [
        entry("1f34e", "red apple", 4, 42, ["fruit", "health", "diet", "food"]),
        entry("1f987", "bat", 3, 34, ["vampire", "night", "animal"]),
        entry("1f558", "nine o’clock", 5, 58, ["clock", "time", "hour"]),
        entry("1f1eb-1f1f7", "flag: France", 9, 98, ["flag"]),
    ]
    groups = {
        "groups": {"3": "animals-nature", "4": "food-drink", "5": "travel-places", "9": "flags"},
        "subgroups": {"34": "animal-mammal", "42": "food-fruit", "58": "time", "98": "country-flag"},
    }
    files = {
        "en/data.json": table,
        "meta/groups.json": groups,
        "meta/unicode-names.json": {"1F34E": "RED APPLE", "1F558": "CLOCK FACE NINE OCLOCK"},
        "en/shortcodes/emojibase.json": {"1F34E": ["apple_red"]},
    }
    return {name: json.dumps(content) for name, content in files.items()}


def iconify_files(colour, code_points=True):
    """Icons named by label; the bat's is hidden behind an unknown name unless code points are given."""
    circle = f'<circle cx="8" cy="8" r="7" fill="{colour}"/>'
    names = {"1f34e": "red-apple", "1f987": "bat", "1f558": "clock-face-nine-oclock"}
    icons = {name: {"body": f"{circle}<path d='M2 {2 + n}h{4 * n + 2}v2z'/>"} for n, name in enumerate(names.values())}
    icons["gone"] = {"body": circle, "hidden": True}
    icons["flag-france"] = {"body": circle}
    chars = names if code_points else {}
    return {"icons.json": json.dumps({"width": 16, "height": 16, "icons": icons}), "chars.json": json.dumps(chars)}


def webp(colour):
    buffer = io.BytesIO()
    picture = Image.new("RGBA", (256, 256))
    picture.paste((*colour, 255), (64, 64, 192, 192))
    picture.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def small_set(cache, original: PictureSet) -> PictureSet:
    colour = COLOURS[original.style]
    if original.reader == "assets":
        contents = {f"assets/{points}.webp": webp(colour) for points in THINGS}
    else:
        contents = iconify_files(colour, code_points=original.style != "noto-v1")
    return replace(original, package=pack(cache, original.package, contents))


@pytest.fixture(name="pack")
def pack_fixture():
    return pack


@pytest.fixture
def cache(tmp_path):
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def picture_sets(cache, monkeypatch):
    """Five small picture sets, fetched already; the word lists are replaced by small ones."""
    keywords = json.dumps({"\U0001f34e": ["red_apple", "apple", "orchard apple"], "\U0001f987": ["bat", ":bat:"]})
    contents = {
        "emojibase": emojibase_files(),
        "emojilib": {"dist/emoji-en-US.json": keywords},
        "wordnet": {"dict/data.noun": DATA_NOUN, "dict/index.noun": INDEX_NOUN},
    }
    lists: dict[str, Package] = {name: pack(cache, WORD_LISTS[name], files) for name, files in contents.items()}
    monkeypatch.setattr(building, "WORD_LISTS", lists)
    return [small_set(cache, each) for each in PICTURE_SETS if each.style in COLOURS]
