"""Textures whose opposite edges meet."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torch import Tensor

import fromnoise as fn
from fromnoise.models.tiling import decode_circular
from fromnoise.pipeline import last, starting
from fromnoise.runtime.seeds import PictureNoise

ASKED = fn.Request("pebbles", seed=1, steps=3, size=(32, 16))


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model, engine="eager")


def pixels(picture: fn.Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


class Rolled(PictureNoise):
    """Noise moved by two latents, across the edge."""

    dims = (2, 3)

    def __call__(self, sigma: float | None = None, sigma_next: float | None = None) -> Tensor:
        return super().__call__().roll((2,) * len(self.dims), self.dims)


@pytest.mark.parametrize(("tile", "dims"), [("x", (3,)), ("y", (2,)), ("xy", (2, 3))])
def test_moving_the_noise_moves_the_picture(
    pipe: fn.Pipeline, monkeypatch: pytest.MonkeyPatch, tile: str, dims: tuple[int, ...]
) -> None:
    """Nothing knows where the edge is: that is what seamless means."""
    straight = pixels(pipe(ASKED, tile=tile)[0])
    open_edge = pixels(pipe(ASKED)[0])
    monkeypatch.setattr(Rolled, "dims", dims)
    monkeypatch.setattr(starting, "NOISES", {"cpu": Rolled})
    by = [4 if dim in dims else 0 for dim in (2, 3)]
    assert np.abs(pixels(pipe(ASKED, tile=tile)[0]) - np.roll(straight, by, (0, 1))).max() <= 1
    assert np.abs(pixels(pipe(ASKED)[0]) - np.roll(open_edge, by, (0, 1))).max() > 10


def test_the_modules_are_as_before(pipe: fn.Pipeline) -> None:
    before = pixels(pipe(ASKED)[0])
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    pipe(ASKED, tile="xy")
    assert np.array_equal(pixels(pipe(ASKED)[0]), before)
    assert all(torch.equal(value, weights[name]) for name, value in pipe.unet.state_dict().items())


def test_threads_with_and_without(pipe: fn.Pipeline) -> None:
    asked = {tile: ASKED.with_(tile=tile, steps=5) for tile in (None, "x", "xy")}
    expected = {tile: pixels(pipe(request)[0]) for tile, request in asked.items()}
    found: dict[str | None, np.ndarray] = {}
    threads = [Thread(target=lambda t=t: found.update({t: pixels(pipe(asked[t])[0])})) for t in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[tile], expected[tile]) for tile in asked)


def test_image_to_image_and_a_mask_take_it_too(pipe: fn.Pipeline) -> None:
    base = pipe(ASKED)[0]
    from fromnoise.images.opening import to_png

    request = fn.Request("moss", seed=2, steps=4, init=to_png(base.image), tile="xy")
    assert not np.array_equal(pixels(pipe(request)[0]), pixels(pipe(request, tile=None)[0]))


def test_large_textures_are_decoded_in_tiles_that_meet(pipe: fn.Pipeline) -> None:
    latents = last(pipe.steps(ASKED, tile="xy")).x.repeat(1, 1, 10, 5)
    with torch.inference_mode():
        wide = decode_circular(pipe.autoencoder, latents, "xy")
        moved = decode_circular(pipe.autoencoder, latents.roll((8, 8), (2, 3)), "xy")
    assert wide.shape[-2:] == (latents.shape[-2] * 2, latents.shape[-1] * 2)
    assert (moved - wide.roll((16, 16), (2, 3))).abs().mean() < 0.02


def test_tiles_of_a_second_pass_do_not_wrap() -> None:
    from fromnoise.request import Hires

    with pytest.raises(fn.UsageError, match="tile"):
        fn.Request("a", tile="x", hires=Hires(tile=64))
