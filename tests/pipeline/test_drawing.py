from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

import fromnoise as fn
from fromnoise.checkpoints.folder import read_tensors, write_tensors
from fromnoise.images.opening import to_png
from fromnoise.pipeline import BATCH, last
from tests.tiny import write_model


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model)


def pixels(picture: fn.Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def test_one_seed_per_picture(pipe: fn.Pipeline) -> None:
    together = pipe("a kite", seed=5, count=3, steps=4)
    assert [each.request.seed for each in together] == [5, 6, 7]
    for picture in together:
        alone = pipe(picture.request)[0]
        assert alone.request == picture.request
        assert np.abs(pixels(alone) - pixels(picture)).max() <= 2


def test_exact_pictures_do_not_depend_on_the_count(pipe: fn.Pipeline) -> None:
    together = pipe("a kite", seed=5, count=3, steps=4, exact=True)
    alone = pipe("a kite", seed=7, steps=4, exact=True)
    assert np.array_equal(pixels(together[2]), pixels(alone[0]))


def test_more_pictures_than_a_batch(pipe: fn.Pipeline) -> None:
    assert [each.request.seed for each in pipe("x", seed=0, count=BATCH + 1, steps=1)] == list(range(BATCH + 1))


def test_seed_zero_is_a_seed_and_none_is_a_fresh_one(pipe: fn.Pipeline) -> None:
    assert pipe("x", seed=0, steps=1)[0].request.seed == 0
    assert pipe("x", steps=1)[0].request.seed != pipe("x", steps=1)[0].request.seed


def test_steps_show_noise_prediction_and_sigma(pipe: fn.Pipeline) -> None:
    request = fn.Request(prompt="x", seed=1, steps=5)
    steps = list(pipe.steps(request))
    assert [each.index for each in steps] == [1, 2, 3, 4, 5]
    assert all(before.sigma > after.sigma for before, after in pairwise(steps))
    assert steps[0].noisy.shape == steps[0].denoised.shape == (1, 4, 8, 8)
    assert pipe.decode(steps[0].denoised)[0].size == (16, 16)
    resumed = last(pipe.steps(request, start=steps[2]))
    assert torch.equal(resumed.x, steps[-1].x)


def test_image_to_image_runs_the_last_steps(pipe: fn.Pipeline) -> None:
    start = to_png(pipe("x", seed=1, steps=2)[0].image)
    request = fn.Request(prompt="y", seed=2, steps=10, strength=0.57, init=start)
    assert pipe.run_steps(request) == len(list(pipe.steps(request))) == 5
    gentle = pipe(request, strength=0.1)[0]
    kept = pipe(request, strength=0.0)[0]
    assert np.abs(pixels(gentle) - pixels(kept)).mean() < np.abs(pixels(pipe(request)[0]) - pixels(kept)).mean()


def test_threads_share_a_pipeline(pipe: fn.Pipeline) -> None:
    expected = {prompt: pixels(pipe(prompt, seed=3, steps=3)[0]) for prompt in ("a", "b")}
    found: dict[str, np.ndarray] = {}
    threads = [Thread(target=lambda p=p: found.update({p: pixels(pipe(p, seed=3, steps=3)[0])})) for p in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[prompt], expected[prompt]) for prompt in expected)


def test_a_size_the_model_cannot_do(pipe: fn.Pipeline) -> None:
    with pytest.raises(fn.UsageError, match="multiples of 2"):
        pipe("x", size=(17, 16))


def test_values_that_are_not_finite_stop_the_run(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = read_tensors(path)
    tensors["conv_out.bias"][0] = float("nan")
    write_tensors(path, tensors)
    with pytest.raises(fn.FromnoiseError, match="not finite"):
        fn.load(folder)("x", steps=2)


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(fn.UsageError, match="no Stable Diffusion folder"):
        fn.load(tmp_path)


def test_public_names() -> None:
    assert all(getattr(fn, name) is not None for name in fn.__all__)
    assert fn.__all__ == sorted(fn.__all__)
