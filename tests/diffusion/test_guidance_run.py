"""One run of guidance: what it asks, where it acts, what it remembers, and going on from a saved step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fromnoise.diffusion import guidance
from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.guidance import (
    ClassifierFree,
    Guided,
    Interval,
    Plan,
    Projected,
    Projection,
    Role,
    ask_pair,
)
from fromnoise.diffusion.samplers import SAMPLERS, Step
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.seeds import PictureNoise

EVERYTHING = Plan(
    scale=6.0,
    projection=Projection(parallel=0.2, limit=30.0, momentum=-0.5),
    perturbed=2.0,
    rescale=0.7,
    threshold=0.95,
    interval=Interval(0.3, 5.0),
)
PULL = {"unconditional": 0.1, "conditional": 0.9, "perturbed": -0.4}


class Counted:
    """A network whose roles pull to different places; it counts what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Role, ...]] = []

    def __call__(self, roles: Sequence[Role]) -> Denoiser:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            self.calls.append(tuple(roles))
            parts = x.chunk(len(roles))
            centres = [PULL[role] * torch.ones_like(part).cumsum(-1) for role, part in zip(roles, parts, strict=True)]
            share = 1 / (1 + sigma[:, None, None, None] ** 2)
            return share * x + (1 - share) * torch.cat(centres).sin()

        return denoise


def level(sigma: float, count: int = 1) -> Tensor:
    return torch.full((count,), sigma)


def test_public_names() -> None:
    assert all(hasattr(guidance, name) for name in guidance.__all__)


@pytest.mark.parametrize(
    ("plan", "roles"),
    [
        (Plan(), ("conditional",)),
        (Plan(scale=0.0), ("unconditional", "conditional")),
        (Plan(scale=4.0, rescale=0.7, threshold=0.99), ("unconditional", "conditional")),
        (Plan(perturbed=3.0), ("conditional", "perturbed")),
        (EVERYTHING, ("unconditional", "conditional", "perturbed")),
        (Plan(weights=(1.0, 1.0)), ("unconditional", "conditional")),
        (Plan(pair=True), ("unconditional", "conditional")),
    ],
)
def test_a_plan_asks_for_no_more_than_it_needs(plan: Plan, roles: tuple[Role, ...]) -> None:
    network = Counted()
    plan.start(network, "epsilon")
    assert plan.roles == roles


def test_without_guidance_nothing_is_changed() -> None:
    network, x = Counted(), torch.randn(2, 4, 3, 3)
    plain = Plan(rescale=0.7, threshold=0.9, projection=Projection()).start(network, "epsilon")
    assert torch.equal(plain(x, level(1.0, 2)), network(["conditional"])(x, level(1.0, 2)))


def test_the_interval_saves_calls() -> None:
    network, x = Counted(), torch.randn(1, 4, 3, 3)
    guided = EVERYTHING.start(network, "epsilon")
    for sigma in (9.0, 5.0, 1.0, 0.3):
        guided(x, level(sigma))
    full: tuple[Role, ...] = ("unconditional", "conditional", "perturbed")
    assert network.calls == [("conditional",), full, full, ("conditional",)]  # low < sigma <= high
    assert torch.equal(guided(x, level(9.0)), network(["conditional"])(x, level(9.0)))


def test_pictures_at_different_levels_stand_inside_or_outside_each_for_itself() -> None:
    x, sigma = torch.randn(2, 4, 3, 3), torch.tensor([1.0, 9.0])
    together, inside = (EVERYTHING.start(Counted(), "epsilon") for _ in range(2))
    made = together(x, sigma)
    torch.testing.assert_close(made[:1], inside(x[:1], sigma[:1]))
    torch.testing.assert_close(made[1:], Counted()(["conditional"])(x[1:], sigma[1:]))
    assert torch.equal(together.state[0][1], torch.zeros(4, 3, 3))


def test_both_gives_the_unconditional_picture_for_cfgpp() -> None:
    network, x = Counted(), torch.randn(1, 4, 3, 3)
    guided = EVERYTHING.start(network, "epsilon")
    _, unconditional = guided.both(x, level(1.0))
    torch.testing.assert_close(unconditional, network(["unconditional"])(x, level(1.0)))
    outside, same = guided.both(x, level(9.0))
    assert torch.equal(outside, same)
    prompt_alone, unconditional = Plan(scale=1.0, pair=True).start(network, "epsilon").both(x, level(1.0))
    torch.testing.assert_close(prompt_alone, network(["conditional"])(x, level(1.0)))
    torch.testing.assert_close(unconditional, network(["unconditional"])(x, level(1.0)))


def test_momentum_adds_up_earlier_differences() -> None:
    ones = torch.ones(1, 1, 1, 2)
    ask = ask_pair(lambda x, sigma: (x * sigma, torch.zeros_like(x)))
    guided = Guided(ask, [Projected(2.0, parallel=1.0)], momentum=-0.5)
    seen = [float(guided(ones, level(sigma))[0, 0, 0, 0]) for sigma in (4.0, 3.0, 1.0)]
    # differences 4, 3, 1 become 4, 3 - 2 = 1, 1 - 0.5 = 0.5; each is added to the conditional
    assert seen == [4 + 4, 3 + 1, 1 + 0.5]
    assert torch.equal(guided.state[0], ones * 0.5)


def test_momentum_refuses_another_number_of_pictures() -> None:
    guided = EVERYTHING.start(Counted(), "epsilon")
    guided(torch.randn(2, 4, 3, 3), level(1.0, 2))
    with pytest.raises(FromnoiseError, match="2 pictures and is asked for 1"):
        guided(torch.randn(1, 4, 3, 3), level(1.0))


def test_classifier_free_ignores_momentum_it_has_not_asked_for() -> None:
    ask = ask_pair(lambda x, sigma: (x * 3, x))
    guided = Guided(ask, [ClassifierFree(2.0)])
    assert guided.state == () and float(guided(torch.ones(1, 1, 1, 1), level(1.0))) == 5


LEVELS = torch.tensor([10.0, 4.0, 2.0, 1.0, 0.6, 0.1, 0.0], dtype=torch.float64)


def draw(name: str, guided: Guided, start: Step | None = None, stop: int | None = None) -> list[Step]:
    """The steps, with the guidance's memory in each."""
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(3)) * 10
    denoise = guided.both if name.endswith("cfg-pp") else guided
    if start is not None:
        guided.state = start.guidance
    steps = SAMPLERS[name](denoise, x, LEVELS, noise=PictureNoise([1, 2], (4, 3, 3)), start=start)
    return [replace(step, guidance=guided.state) for step in itertools.islice(steps, stop)]


@pytest.mark.parametrize(
    "name", ["euler", "euler-a", "heun", "lms", "dpm2", "dpmpp-2m", "dpmpp-2s-a", "unipc", "dpmpp-2m-cfg-pp"]
)
@pytest.mark.parametrize("at", [1, 2, 4])
def test_going_on_from_a_saved_step_is_bit_equal(name: str, at: int, tmp_path: Path) -> None:
    whole = draw(name, EVERYTHING.start(Counted(), "v_prediction"))
    step = draw(name, EVERYTHING.start(Counted(), "v_prediction"), stop=at)[-1]
    step.save(tmp_path / "step.safetensors")

    saved = Step.read(tmp_path / "step.safetensors")
    again = draw(name, EVERYTHING.start(Counted(), "v_prediction"), saved)
    assert torch.equal(again[-1].x, whole[-1].x)
    if saved.guidance:  # there is none before the interval
        forgetful = draw(name, EVERYTHING.start(Counted(), "v_prediction"), replace(saved, guidance=()))
        assert not torch.equal(forgetful[-1].x, whole[-1].x)
