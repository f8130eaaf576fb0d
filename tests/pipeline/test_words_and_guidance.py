"""What a request says about words and guidance reaches the network, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fromnoise as fn
from fromnoise.diffusion.samplers import SAMPLERS, TWO_DENOISERS, Step
from fromnoise.pipeline import last
from fromnoise.pipeline.guiding import interval
from fromnoise.pipeline.network import Network
from fromnoise.text import mix

SAID = {"seed": 3, "steps": 6, "guidance": 3.0, "sampler": "euler"}


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model)


def steps(pipe: fn.Pipeline, prompt: str, **fields: Any) -> list[Step]:
    return list(pipe.steps(prompt, **{**SAID, **fields}))


def batches(pipe: fn.Pipeline, prompt: str, **fields: Any) -> list[int]:
    """How many rows the network gets in each call."""
    seen: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    steps(pipe, prompt, **fields)
    hook.remove()
    return seen


def test_an_edit_draws_the_first_text_until_it_switches(pipe: fn.Pipeline) -> None:
    first, edited = steps(pipe, "a kite"), steps(pipe, "[a kite:a boat:0.5]")
    same = [torch.equal(one.x, other.x) for one, other in zip(first, edited, strict=True)]
    assert same == [True] * 3 + [False] * 3


def test_alternation_takes_turns(pipe: fn.Pipeline) -> None:
    first, turning = steps(pipe, "a kite"), steps(pipe, "[a kite|a boat]")
    assert torch.equal(first[0].denoised, turning[0].denoised)
    assert not torch.equal(first[1].denoised, turning[1].denoised)


def test_and_is_the_weighted_sum_of_the_prompts(pipe: fn.Pipeline) -> None:
    start = steps(pipe, "a", steps=1)[0].noisy

    def predicted(prompt: str, guidance: float) -> Tensor:
        step = steps(pipe, prompt, steps=1, guidance=guidance)[0]
        assert torch.equal(step.noisy, start)
        return step.denoised

    nothing = predicted("a kite", 0.0)
    kite, boat = predicted("a kite", 1.0), predicted("a boat", 1.0)
    expected = nothing + 2.0 * ((kite - nothing) + 0.5 * (boat - nothing))
    assert (predicted("a kite AND a boat:0.5", 2.0) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_half_a_kite_half_a_boat(pipe: fn.Pipeline) -> None:
    both = pipe.prompts.encode(["a kite", "a boat"])
    kite, boat = (last(pipe.steps("", **SAID, words=both[at : at + 1])).x for at in (0, 1))
    assert torch.equal(kite, steps(pipe, "a kite")[-1].x)
    mixed = last(pipe.steps("", **SAID, words=mix(both[:1], both[1:], 0.5))).x
    assert not torch.equal(mixed, kite)
    assert not torch.equal(mixed, boat)
    with pytest.raises(fn.UsageError, match="one prompt's"):
        next(pipe.steps("", **SAID, words=both))


def test_weights_change_the_drawing_unless_they_are_letters(pipe: fn.Pipeline) -> None:
    plain, heavy = (steps(pipe, prompt)[-1].x for prompt in ("kite", "(kite:1.5)"))
    assert not torch.equal(plain, heavy)
    assert torch.equal(steps(pipe, "(kite:1.0)")[-1].x, plain)
    assert not torch.equal(steps(pipe, "(kite:1.0)", weighting="none")[-1].x, plain)
    assert not torch.equal(steps(pipe, "(kite:1.5)", weighting="comfyui")[-1].x, heavy)


def test_the_network_is_asked_for_no_more_than_is_needed(pipe: fn.Pipeline) -> None:
    assert batches(pipe, "a", steps=2) == [2, 2]
    assert batches(pipe, "a", steps=2, guidance=1.0) == [1, 1]
    assert batches(pipe, "a", steps=2, pag=1.0) == [3, 3]
    assert batches(pipe, "a", steps=2, guidance=1.0, pag=1.0) == [2, 2]
    assert batches(pipe, "a AND b", steps=2, count=2) == [6, 6]
    assert batches(pipe, "a", steps=4, interval=(0.25, 0.75)) == [1, 2, 2, 1]


@pytest.mark.parametrize("field", [{"rescale": 0.7}, {"apg": (0.0, 5.0, -0.5)}, {"threshold": 0.9}, {"pag": 2.0}])
def test_every_guidance_changes_the_drawing(pipe: fn.Pipeline, field: dict[str, Any]) -> None:
    assert not torch.equal(steps(pipe, "a kite")[-1].x, steps(pipe, "a kite", **field)[-1].x)


def test_momentum_survives_a_saved_step(pipe: fn.Pipeline, tmp_path: Path) -> None:
    whole = steps(pipe, "a kite", apg=(0.0, 5.0, -0.5))
    whole[2].save(tmp_path / "step.safetensors")
    again = pipe.steps("a kite", **SAID, apg=(0.0, 5.0, -0.5), start=Step.read(tmp_path / "step.safetensors"))
    assert torch.equal(last(again).x, whole[-1].x)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_draws_and_resumes(pipe: fn.Pipeline, sampler: str, tmp_path: Path) -> None:
    guidance = 0.6 if sampler in TWO_DENOISERS else 3.0
    settings = {**SAID, "sampler": sampler, "guidance": guidance, "count": 2}
    whole = list(pipe.steps("a kite", **settings))
    place = tmp_path / "step.safetensors"
    whole[len(whole) // 2 - 1].save(place)
    assert torch.equal(last(pipe.steps("a kite", **settings, start=Step.read(place))).x, whole[-1].x)


def test_a_loss_pulls_the_picture(pipe: fn.Pipeline) -> None:
    def brightness(loss_scale: float) -> float:
        drawn = last(pipe.steps("a kite", **SAID, loss=lambda picture: -picture.mean(), loss_scale=loss_scale))
        with torch.inference_mode():
            return float(pipe.autoencoder.decode(drawn.x).mean())

    assert brightness(0.0) < brightness(500.0)


def test_an_interval_in_shares_of_the_steps() -> None:
    sigmas = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    assert interval((0.25, 0.75), sigmas) == (1.0, 4.0)
    assert interval((0.0, 1.0), sigmas) == (0.0, 8.0)


def test_which_step_a_level_belongs_to(pipe: fn.Pipeline) -> None:
    sigmas = torch.tensor([8.0, 4.0, 2.0, 0.0])
    network = Network(pipe.unet, pipe.scheduler.schedule, "epsilon", sigmas, lambda step: None, 1)  # type: ignore[arg-type,return-value]
    assert [network.step_at(level) for level in (9.0, 8.0, 7.9, 4.0, 3.0, 2.0, 0.1)] == [0, 0, 0, 1, 1, 2, 2]
