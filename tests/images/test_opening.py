"""Any picture that Pillow reads, and clear words for what is none."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fromnoise.images import opening
from fromnoise.images.opening import (
    fit,
    is_see_through,
    nearest_size,
    open_image,
    read_picture,
    starting_picture,
    upright_rgb,
)
from fromnoise.runtime.errors import UsageError

NATIVE = (128, 128)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def half_and_half(mode: str = "RGB") -> Image.Image:
    """Left black, right white."""
    image = Image.new("L", (40, 20), 0)
    image.paste(255, (20, 0, 40, 20))
    return image.convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO"])
def test_formats(format: str):
    image = open_image(encoded(Image.new("RGB", (32, 32), (200, 30, 30)), format))
    pixels = np.asarray(upright_rgb(image), np.int16)
    assert np.abs(pixels - [200, 30, 30]).max() <= 3


def test_exif_rotation():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    upright = upright_rgb(open_image(encoded(half_and_half(), "JPEG", exif=exif, quality=100)))
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 2))[0] < 20
    assert upright.getpixel((10, 37))[0] > 235


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0)), ("PA", (0, 0))])
def test_alpha_is_over_white(mode: str, colour: tuple[int, ...]):
    clear = Image.new(mode, (8, 8), colour)
    assert upright_rgb(clear).getpixel((4, 4)) == (255, 255, 255)


def test_half_transparent_and_palette():
    assert upright_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    opened = open_image(encoded(palette, "PNG", transparency=0))
    assert upright_rgb(opened).getpixel((0, 0)) == (255, 255, 255)


def test_deep_grey_is_not_clipped():
    ramp = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    assert ramp.mode == "I;16"
    grey = np.asarray(upright_rgb(open_image(encoded(ramp))))[..., 0]
    assert np.array_equal(grey.ravel(), np.arange(256))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_modes(mode: str):
    grey = half_and_half("F").point(lambda x: x * 1) if mode == "F" else half_and_half()
    image = grey if mode == "F" else grey.convert(mode)
    upright = upright_rgb(image)
    assert upright.mode == "RGB"
    assert upright.getpixel((2, 2))[0] < 10


def test_first_frame_is_said(caplog):
    frames = [Image.new("RGB", (128, 128), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with caplog.at_level("INFO", "fromnoise"):
        png = starting_picture(data, NATIVE, 8, name="film.gif")
    assert "film.gif is animated" in caplog.text
    assert Image.open(io.BytesIO(png)).getpixel((5, 5))[0] > 200


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"hello, I am no picture", "no picture that can be read"),
        (b"\x89PNG\r\n\x1a\n", "no picture that can be read"),
        (encoded(Image.new("RGB", (64, 64), "red"))[:90], "damaged|no picture"),
        (huge_png(), "too many pixels"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture that can be read"),
    ],
)
def test_bad_pictures(data: bytes, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        starting_picture(data, NATIVE, 8, name="apple.png")
    assert "apple.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bomb_below_pillows_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UsageError, match="too many pixels"):
        open_image(encoded(Image.new("RGB", (40, 40))))  # between the limit and twice the limit: only a warning


@settings(max_examples=150, deadline=None)
@given(data=st.data(), format=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
def test_damage_never_escapes(data: st.DataObject, format: str):
    good = bytearray(encoded(half_and_half(), format))
    cut = data.draw(st.integers(0, len(good)))
    for _ in range(data.draw(st.integers(0, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UsageError):
        starting_picture(bytes(good[:cut]), NATIVE, 8)


def test_unreadable_files(tmp_path: Path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(UsageError, match="can't read"):
            read_picture(path)


def test_fit_says_what_it_does(caplog):
    with caplog.at_level("INFO", "fromnoise"):
        assert fit(Image.new("RGB", NATIVE), NATIVE, 8).size == NATIVE
        assert not caplog.text
        assert fit(Image.new("RGB", (1000, 500)), NATIVE, 8).size == (176, 88)
        assert "1000x500; resized to 176x88" in caplog.text
        assert "cuts" not in caplog.text
        assert fit(Image.new("RGB", (200, 100)), NATIVE, 8, size=(128, 128)).size == (128, 128)
        assert "cuts 50% off the sides" in caplog.text


def test_fit_keeps_the_middle():
    image = Image.new("RGB", (300, 100), "black")
    image.paste("red", (100, 0, 200, 100))
    assert np.asarray(fit(image, NATIVE, 8, size=(128, 128)).convert("RGB"))[:, 4:-4, 0].min() > 200


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), multiple=st.sampled_from([8, 16, 32, 64]))
@settings(max_examples=200, deadline=None)
def test_nearest_size(width: int, height: int, multiple: int):
    near = nearest_size((width, height), NATIVE, multiple)
    assert all(side % multiple == 0 and side <= opening.WIDEST * 128 for side in near)
    if 0.5 <= width / height <= 2 and multiple == 8:
        assert near[0] / near[1] == pytest.approx(width / height, rel=0.07)
        assert near[0] * near[1] == pytest.approx(128 * 128, rel=0.25)


def test_native_pictures_stay():
    assert nearest_size((512, 512), NATIVE, 8) == NATIVE
    assert nearest_size((640, 480), (512, 512), 64) in {(576, 448), (640, 448), (512, 384), (640, 512)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers(value: float):
    image = Image.new("F", (4, 4), 0.5)
    image.putpixel((1, 1), value)
    with pytest.raises(UsageError, match="no numbers"):
        upright_rgb(image)


def test_values_below_zero_are_said(caplog):
    image = Image.new("F", (2, 1), 1.0)
    image.putpixel((1, 0), -1.0)
    with caplog.at_level("INFO", "fromnoise"):
        assert [upright_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]
    assert "below 0" in caplog.text


def test_transparent_deep_grey():
    deep = Image.fromarray(np.array([[1000, 40_000]], np.uint16))
    deep.info["transparency"] = 1000
    assert upright_rgb(deep).getpixel((0, 0)) == (255, 255, 255)
    assert upright_rgb(deep).getpixel((1, 0)) == (156, 156, 156)


def test_what_is_see_through():
    deep = Image.fromarray(np.full((4, 4), 3000, np.uint16))
    assert is_see_through(open_image(encoded(deep, transparency=3000)))
    assert not is_see_through(open_image(encoded(deep)))
    assert is_see_through(Image.new("RGBA", (4, 4), (0, 0, 0, 254)))
    assert not is_see_through(Image.new("RGBA", (4, 4), "red"))
