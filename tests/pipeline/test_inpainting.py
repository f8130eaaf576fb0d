"""Drawing inside a mask with an ordinary checkpoint: what is kept, what is drawn, and at which size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fromnoise as fn
from fromnoise.images.opening import open_image, to_png
from fromnoise.pipeline import last
from fromnoise.pipeline.inpainting import Inpainting
from fromnoise.pipeline.starting import begin, source
from fromnoise.request import LIKE, SAMPLERS

NOISE = np.random.default_rng(0)
PICTURE = Image.fromarray(NOISE.integers(0, 256, (16, 16, 3), np.uint8))


def mask(box: tuple[int, int, int, int] = (3, 4, 11, 13), size: tuple[int, int] = (16, 16)) -> Image.Image:
    made = Image.new("L", size)
    made.paste(255, box)
    return made


INSIDE = {"init": to_png(PICTURE), "mask": to_png(mask()), "strength": 1.0}
WHITE = np.asarray(mask()) > 0


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model, engine="eager")


def pixels(picture: fn.Picture | Image.Image) -> np.ndarray:
    return np.asarray(picture if isinstance(picture, Image.Image) else picture.image).astype(int)


@pytest.mark.parametrize("strength", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("blur", [0, 2])
def test_what_is_not_masked_keeps_every_bit(pipe: fn.Pipeline, strength: float, blur: int) -> None:
    drawn = pixels(pipe("a hat", seed=1, steps=4, **INSIDE | {"strength": strength}, mask_blur=blur)[0])
    assert np.array_equal(drawn[~WHITE], pixels(PICTURE)[~WHITE])
    assert np.abs(drawn[WHITE] - pixels(PICTURE)[WHITE]).mean() > 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_ends_at_the_kept_latents(pipe: fn.Pipeline, sampler: str) -> None:
    """Of the last Step the kept latents are those of the picture, but for what is left at the last level above 0."""
    request = fn.Request("a hat", seed=1, steps=6, sampler=sampler, schedule="karras", **INSIDE)
    request = pipe.resolve(request)
    with torch.inference_mode():
        clean = begin(pipe, request, pipe.sigmas(request), source(request, (4, 8, 8))).clean
    assert clean is not None
    kept = Inpainting.of(request).drawn((8, 8))[0, 0] == 0
    x = last(pipe.steps(request)).x
    assert torch.allclose(x[..., kept], clean[..., kept], atol=0.2)
    assert (x[..., ~kept] - clean[..., ~kept]).abs().mean() > 0.2


def test_one_picture_of_a_batch_is_that_picture_alone(pipe: fn.Pipeline) -> None:
    together = pipe("a hat", seed=1, steps=3, count=2, sampler="euler-a", exact=True, **INSIDE)
    alone = pipe(together[1].request)
    assert np.array_equal(pixels(together[1]), pixels(alone[0]))


def test_a_saved_step_goes_on_bit_exactly(pipe: fn.Pipeline) -> None:
    request = fn.Request("a hat", seed=1, steps=5, sampler="euler-a", **INSIDE)
    steps = list(pipe.steps(request))
    assert torch.equal(last(pipe.steps(request, start=steps[1])).x, steps[-1].x)


def test_a_thin_mask_is_drawn(pipe: fn.Pipeline) -> None:
    """One pixel wide, off the corner that diffusers looks at."""
    line = mask((5, 1, 6, 15))
    drawn = pixels(pipe("a hat", seed=1, steps=3, **INSIDE | {"mask": to_png(line)}, mask_blur=0)[0])
    assert np.abs(drawn - pixels(PICTURE))[np.asarray(line) > 0].mean() > 10


def test_only_masked_is_drawn_at_full_size_and_put_back(pipe: fn.Pipeline) -> None:
    large = Image.fromarray(NOISE.integers(0, 256, (50, 70, 3), np.uint8))
    white = mask((20, 11, 34, 25), large.size)
    given = {"init": to_png(large), "mask": to_png(white), "strength": 1.0, "mask_padding": 3, "mask_blur": 0}
    request = pipe.resolve("a hat", seed=1, steps=3, **given)
    assert request.size == (16, 16)
    assert Inpainting.of(request).box == (17, 8, 37, 28)
    drawn = pipe(request)[0]
    assert drawn.image.size == large.size
    inside = np.asarray(white) > 0
    assert np.array_equal(pixels(drawn)[~inside], pixels(large)[~inside])
    assert np.abs(pixels(drawn)[inside] - pixels(large)[inside]).mean() > 10
    wide = pipe.resolve("a hat", **given | {"mask": to_png(mask((2, 20, 66, 28), large.size))})
    assert wide.size is not None
    assert wide.size[0] > wide.size[1]


def test_a_picture_of_any_size_keeps_its_size(pipe: fn.Pipeline) -> None:
    odd = PICTURE.resize((37, 23))
    white = mask((5, 5, 20, 15), odd.size)
    drawn = pipe("a hat", seed=1, steps=2, init=to_png(odd), mask=to_png(white), strength=1.0)[0]
    assert drawn.image.size == odd.size
    outside = np.asarray(white) == 0
    assert np.array_equal(pixels(drawn)[outside], pixels(odd)[outside])


@pytest.mark.parametrize("like", LIKE)
@pytest.mark.parametrize("sampler", ["euler-a", "ddim", "dpmpp-2m"])
def test_every_tools_way(pipe: fn.Pipeline, like: str, sampler: str) -> None:
    given = {**INSIDE, "strength": 0.75, "like": like, "sampler": sampler, "steps": 4, "seed": 2, "mask_blur": 1}
    drawn = pixels(pipe("a hat", **given)[0])
    far = np.zeros((16, 16), bool)
    far[:, 15] = far[0] = True
    assert np.array_equal(drawn[far], pixels(PICTURE)[far]) == (like == "a1111")
    assert np.abs(drawn - pixels(PICTURE))[WHITE].mean() > 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mask": to_png(Image.new("L", (16, 16)))}, "all black"),
        ({"mask": to_png(Image.new("L", (16, 16), 255))}, "all white"),
        ({"mask": to_png(mask(size=(18, 16)))}, "the mask is 18x16 and the picture 16x16"),
        ({"mask": b"no picture"}, "none that can be read"),
        ({"size": (15, 16)}, "multiples of 2"),
    ],
)
def test_masks_that_can_not_be_meant(pipe: fn.Pipeline, fields: dict[str, object], said: str) -> None:
    with pytest.raises(fn.UsageError, match=said) as caught:
        pipe("a hat", **INSIDE | fields)
    assert "\n" not in str(caught.value)


def test_it_replays_from_its_file(pipe: fn.Pipeline, tmp_path: Path) -> None:
    from fromnoise.images.metadata import read_settings

    path = pipe("a hat", seed=1, steps=3, **INSIDE, mask_blur=1)[0].save(tmp_path / "a.png")
    image = open_image(path.read_bytes())
    settings = read_settings(image)
    assert settings is not None
    assert settings.request is not None
    assert np.array_equal(pixels(pipe(settings.request)[0]), pixels(image))
