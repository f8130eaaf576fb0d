"""Files are whole, have the format of their name, and are never written over unless asked."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.images.saving import encode, picture_format, save_picture
from fromnoise.request import Request
from fromnoise.runtime.errors import FromnoiseError, UsageError

NOISE = Image.effect_noise((24, 16), 90).convert("RGB")
REQUEST = Request("a wolf", seed=1, size=(24, 16))


NAMES = {"a.png": "PNG", "a.JPG": "JPEG", "a.jpeg": "JPEG", "a.webp": "WEBP"}


@pytest.mark.parametrize(("name", "format"), NAMES.items())
def test_format_by_name(tmp_path: Path, name: str, format: str):
    path = save_picture(NOISE, REQUEST, tmp_path / "new folder" / name)
    saved = Image.open(path)
    assert saved.format == format
    assert saved.size == NOISE.size
    if format != "JPEG":
        assert np.array_equal(np.asarray(saved.convert("RGB")), np.asarray(NOISE))


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt"])
def test_unknown_formats(name: str):
    with pytest.raises(UsageError, match=r"\.png"):
        picture_format(Path(name))


def test_never_over_another_file(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        save_picture(NOISE, REQUEST, path)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
    save_picture(NOISE, REQUEST, path, overwrite=True)
    assert Image.open(path).size == NOISE.size
    assert list(tmp_path.iterdir()) == [path]


def test_too_large_for_the_format():
    with pytest.raises(FromnoiseError, match="WEBP"):
        encode(Image.new("RGB", (16_400, 1)), "WEBP", REQUEST)


def test_same_picture_same_bytes():
    assert encode(NOISE, "PNG", REQUEST) == encode(NOISE, "PNG", REQUEST)
