"""Masks from any picture, the region that is drawn, and what is put back."""

import io

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fromnoise.images.masks import hole_mask, inner_feather, mask_for, outer_feather, pasted, surroundings, two_tone
from fromnoise.images.opening import open_image, to_png
from fromnoise.runtime.errors import UsageError

SIZE = (40, 24)


def half(mode: str = "L", white: object = 255, black: object = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """Left half black, right half white."""
    image = Image.new(mode, size, black)
    image.paste(white, (size[0] // 2, 0, *size))
    return image


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(open_image(png))


@pytest.mark.parametrize(
    "image",
    [
        half(),
        half("1", 1),
        half("RGB", (255, 255, 255)),
        half("RGBA", (255, 255, 255, 255), (0, 0, 0, 255)),
        half("RGBA", (255, 255, 255, 255), (0, 0, 0, 0)),
        half("RGBA", (90, 10, 200, 0), (90, 200, 10, 255)),
        half("LA", (255, 255), (0, 0)),
        half("L", 128, 127),
        half(size=(80, 48)),
        half(size=(10, 6)),
    ],
    ids=["grey", "bits", "rgb", "opaque", "white-strokes", "hole", "grey-alpha", "threshold", "larger", "smaller"],
)
def test_any_mask_of_the_same_shape(image: Image.Image):
    assert np.array_equal(pixels(mask_for(to_png(image), SIZE)), np.asarray(half()))


def test_deep_greys():
    """16 bits and floats are not cut off at 255 or rounded down to 0."""
    deep = np.where(np.asarray(half()), 65535, 3000).astype(np.uint16)
    assert np.array_equal(pixels(mask_for(to_png(Image.fromarray(deep)), SIZE)), np.asarray(half()))
    shares = Image.fromarray((np.asarray(half()) / 255).astype(np.float32))
    file = io.BytesIO()
    shares.save(file, "TIFF")
    assert np.array_equal(pixels(mask_for(file.getvalue(), SIZE)), np.asarray(half()))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_as_exif_says(orientation: int):
    lying = Image.new("L", SIZE)
    lying.paste(255, (4, 2, 12, 14))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    lying.save(file, "PNG", exif=exif)
    standing = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    assert np.array_equal(pixels(mask_for(file.getvalue(), standing.shape[::-1])), standing)
    hole = Image.new("RGBA", SIZE, "red")
    hole.putalpha(ImageOps.invert(lying))
    file = io.BytesIO()
    hole.save(file, "PNG", exif=exif)
    assert np.array_equal(pixels(hole_mask(open_image(file.getvalue()))), standing)


def test_inverted():
    assert np.array_equal(pixels(mask_for(to_png(half()), SIZE, invert=True)), 255 - np.asarray(half()))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.new("L", SIZE), "all black"),
        (Image.new("L", SIZE, 255), "all white"),
        (half(size=(24, 40)), "24x40 and the picture 40x24"),
    ],
)
def test_a_mask_that_can_not_be_meant(image: Image.Image, said: str):
    with pytest.raises(UsageError, match=said) as caught:
        mask_for(to_png(image), SIZE, "hat.png")
    assert "hat.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_picture_is_no_mask():
    with pytest.raises(UsageError, match="mask"):
        mask_for(b"no picture", SIZE)


def test_a_mask_the_wrong_way_round_is_asked_about(caplog: pytest.LogCaptureFixture):
    image = Image.new("L", SIZE, 255)
    image.putpixel((0, 0), 0)
    with caplog.at_level("INFO", logger="fromnoise"):
        mask_for(to_png(image), SIZE)
    assert "--invert" in caplog.text


def test_a_hole_is_a_mask():
    image = half("RGBA", (0, 0, 0, 0), (200, 10, 10, 255))
    assert np.array_equal(pixels(hole_mask(image)), np.asarray(half()))
    with pytest.raises(UsageError, match="--mask"):
        hole_mask(half("RGB", (1, 2, 3)))
    assert np.array_equal(pixels(hole_mask(image, invert=True)), 255 - np.asarray(half()))


boxes = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(1, 40), st.integers(1, 30))


@settings(max_examples=200, deadline=None)
@given(boxes, st.integers(0, 50), st.tuples(st.integers(8, 64), st.integers(8, 64)))
def test_the_region_is_diffusers(box: tuple[int, int, int, int], padding: int, size: tuple[int, int]):
    left, top, wide, high = box
    mask = Image.new("L", (64, 48))
    mask.paste(255, (min(left, 63), min(top, 47), min(left, 63) + wide, min(top, 47) + high))
    assert surroundings(mask, padding, size) == VaeImageProcessor.get_crop_region(mask, *size, pad=padding)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_what_is_not_masked_keeps_every_bit(seed: int, blur: int):
    noise = np.random.default_rng(seed)
    picture, drawn = (Image.fromarray(noise.integers(0, 256, (24, 40, 3), np.uint8)) for _ in range(2))
    mask = two_tone(Image.fromarray(noise.integers(0, 256, (3, 5), np.uint8)).resize(SIZE))
    result = np.asarray(pasted(drawn, picture, (0, 0, *SIZE), inner_feather(mask, blur)))
    outside = np.asarray(mask) == 0
    assert np.array_equal(result[outside], np.asarray(picture)[outside])
    if not blur:
        assert np.array_equal(result[~outside], np.asarray(drawn)[~outside])


def test_feathers():
    mask = half(size=(64, 16))
    inner, outer = (np.asarray(each(mask, 3))[8].astype(int) for each in (inner_feather, outer_feather))
    assert (np.diff(inner) >= 0).all()
    assert inner[31] == 0 < inner[33] < inner[36] < inner[-1] == 255
    assert (np.diff(outer) >= 0).all()
    assert outer[0] == 0 < outer[29] < outer[33] == 255
