"""How much work a picture is worth: what a quality chooses, and that pictures drawn so draw themselves again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fromnoise as fn
from fromnoise.diffusion.samplers import Step
from fromnoise.pipeline import Habits, last
from fromnoise.pipeline.quality import CHOICES
from fromnoise.pipeline.scheduler import HABITS


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model)


def pixels(picture: fn.Picture) -> np.ndarray:
    return np.asarray(picture.image)


def test_best_is_the_models_own(pipe: fn.Pipeline):
    own = pipe.resolve("x", seed=1)
    assert pipe.resolve("x", seed=1, quality="best") == own
    assert (own.steps, own.reuse, own.merge, own.interval, own.quality) == (12, None, None, None, None)


@pytest.mark.parametrize("quality", ["draft", "balanced"])
def test_what_is_said_wins_over_what_a_quality_chooses(pipe: fn.Pipeline, quality: str):
    chosen = pipe.resolve("x", seed=1, quality=quality)
    assert chosen.quality is None
    said = {"steps": 3, "sampler": "heun", "schedule": "karras", "interval": (0.0, 1.0), "reuse": (1, 1), "merge": 0.0}
    assert pipe.resolve("x", seed=1, quality=quality, **said) == pipe.resolve("x", seed=1, **said)
    for name, value in CHOICES[quality].items():
        if name != "schedule":
            assert getattr(chosen, name) == value
        assert getattr(pipe.resolve("x", seed=1, quality=quality, steps=3), name) == (
            3 if name == "steps" else getattr(chosen, name)
        )


@pytest.mark.parametrize(("family", "schedule"), [("sd1", "align-your-steps"), ("sdxl", "align-your-steps-xl")])
def test_few_steps_are_aligned_for_the_family(family: str, schedule: str):
    assert HABITS[family].fill(fn.Request(quality="balanced")).schedule == schedule
    assert HABITS[family].fill(fn.Request(quality="best")).schedule == "model"
    assert Habits().fill(fn.Request(quality="balanced")).schedule == "model"


@pytest.mark.parametrize("family", ["sd-turbo", "sdxl-turbo", "lcm"])
@pytest.mark.parametrize("quality", CHOICES)
def test_models_of_few_steps_keep_their_ways(family: str, quality: str):
    assert HABITS[family].fill(fn.Request(quality=quality)) == HABITS[family].fill(fn.Request())


@pytest.mark.parametrize("quality", CHOICES)
def test_the_picture_draws_itself_again(pipe: fn.Pipeline, quality: str):
    picture = pipe("a kite", seed=3, quality=quality)[0]
    request = fn.Request.from_json(picture.request.to_json())
    assert request == picture.request
    assert np.array_equal(pixels(pipe(request)[0]), pixels(picture))


def test_reuse_every_step_and_merging_nothing_are_exact(pipe: fn.Pipeline):
    exact = last(pipe.steps("a kite", seed=3, steps=4)).x
    assert torch.equal(last(pipe.steps("a kite", seed=3, steps=4, reuse=(1, 1), merge=0.0)).x, exact)
    for fields in ({"reuse": (2, 1)}, {"merge": 0.5}):
        assert not torch.equal(last(pipe.steps("a kite", seed=3, steps=4, **fields)).x, exact)


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("fields", [{}, {"interval": (0.0, 0.5)}, {"sampler": "heun"}, {"sampler": "euler-cfg-pp"}])
def test_a_saved_step_goes_on_bit_exactly(pipe: fn.Pipeline, tmp_path: Path, stop: int, fields: dict[str, object]):
    request = pipe.resolve("a kite", seed=3, steps=6, count=2, reuse=(3, 1), **fields)
    steps = list(pipe.steps(request))
    steps[stop - 1].save(tmp_path / "step.safetensors")
    resumed = pipe.steps(request, start=Step.read(tmp_path / "step.safetensors"))
    assert torch.equal(last(resumed).x, steps[-1].x)


def test_runs_do_not_share_what_they_keep(pipe: fn.Pipeline):
    alone = last(pipe.steps("a kite", seed=3, steps=4, reuse=(2, 1))).x
    one, two = pipe.steps("a kite", seed=3, steps=4, reuse=(2, 1)), pipe.steps("a cat", seed=5, steps=4, reuse=(2, 1))
    steps = [(a, b) for a, b in zip(one, two, strict=True)]
    assert torch.equal(steps[-1][0].x, alone)


def test_previews_of_known_latents_are_linear(pipe: fn.Pipeline, monkeypatch: pytest.MonkeyPatch):
    latents = torch.randn(2, 4, 8, 8)
    decoded = pipe.preview(latents)
    assert [np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(decoded, pipe.decode(latents), strict=True)]
    monkeypatch.setattr("fromnoise.models.preview.COLOURS", {(4, 0.5): ((1.0, 0.0, 0.0),) * 4})
    red = pipe.preview(torch.full((1, 4, 8, 8), 0.25))[0]
    assert red.size == decoded[0].size == (16, 16)
    assert red.getpixel((3, 3)) == (255, 128, 128)
