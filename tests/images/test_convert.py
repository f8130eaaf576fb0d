"""Pixels to tensors and back, against diffusers' own image processor."""

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.images.convert import to_images, to_tensor
from fromnoise.runtime.errors import FromnoiseError


def every_byte() -> Image.Image:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return Image.fromarray(np.stack([values, values[::-1], values.T], -1))


def test_every_byte_comes_back():
    image = every_byte()
    (back,) = to_images(to_tensor(image))
    assert np.array_equal(np.asarray(back), np.asarray(image))


def test_range_and_layout():
    image = Image.new("RGB", (3, 2), (255, 0, 0))
    tensor = to_tensor([image, image])
    assert tensor.shape == (2, 3, 2, 3)
    assert tensor.dtype == torch.float32
    assert tensor[0, 0].eq(1).all()
    assert tensor[0, 1:].eq(-1).all()


def test_same_as_diffusers():
    processor = pytest.importorskip("diffusers.image_processor").VaeImageProcessor(do_resize=False)
    image = every_byte()
    assert torch.equal(to_tensor(image), processor.preprocess(image))
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 - 1.5
    theirs = processor.postprocess(pictures, output_type="pil")
    for mine, other in zip(to_images(pictures), theirs, strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(other))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_never_a_black_picture(bad: float):
    pictures = torch.zeros(1, 3, 2, 2)
    pictures[0, 1, 1, 1] = bad
    with pytest.raises(FromnoiseError, match="not finite"):
        to_images(pictures)
