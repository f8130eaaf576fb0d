"""Our samplers against k-diffusion's over whole trajectories, with the same noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise.diffusion.samplers import BROWNIAN, SAMPLERS
from fromnoise.diffusion.schedules import exponential, karras, polyexponential
from fromnoise.runtime.seeds import BrownianNoise, PictureNoise
from tests.parity import k_diffusion
from tests.parity.denoisers import DENOISERS, SHAPE, close, first

HIGH, LOW = 14.6, 0.03

PAIRS = {
    "euler": "sample_euler",
    "heun": "sample_heun",
    "ddim": "sample_euler",
    "lms": "sample_lms",
    "dpm2": "sample_dpm_2",
    "dpm2-a": "sample_dpm_2_ancestral",
    "dpmpp-2m": "sample_dpmpp_2m",
    "dpmpp-2m-sde": "sample_dpmpp_2m_sde",
    "dpmpp-3m-sde": "sample_dpmpp_3m_sde",
    "dpmpp-2s-a": "sample_dpmpp_2s_ancestral",
    "dpmpp-sde": "sample_dpmpp_sde",
    "euler-a": "sample_euler_ancestral",
}
CASES = [(name, steps) for name in PAIRS for steps in (1, 2, 3, 9) if (name[-5:], steps) != ("m-sde", 1)]
"""All but those that k-diffusion can't run: its multistep SDE samplers in one step."""

NOISY = {"dpm2-a", "dpmpp-2m-sde", "dpmpp-3m-sde", "dpmpp-2s-a", "dpmpp-sde", "euler-a"}


def noise(name: str, seeds: list[int]) -> Any:
    return BrownianNoise(seeds, SHAPE) if name in BROWNIAN else PictureNoise(seeds, SHAPE)


def both(name: str, model: Any, x: Tensor, sigmas: Tensor) -> tuple[list[Any], list[Tensor], Tensor]:
    """Our Steps, their predicted pictures, and where they end."""
    seen: list[Tensor] = []
    theirs = noise(name, [7, 8])
    extra = {"noise_sampler": lambda *ends: theirs(*map(float, ends)).double()} if name in NOISY else {}
    end = getattr(k_diffusion.sampling(), PAIRS[name])(
        model, x, sigmas, callback=lambda info: seen.append(info["denoised"]), disable=True, **extra
    )
    return list(SAMPLERS[name](model, x, sigmas, noise=noise(name, [7, 8]))), seen, end


@pytest.mark.parametrize("model", DENOISERS)
@pytest.mark.parametrize(("name", "steps"), CASES)
def test_same_trajectory(name: str, steps: int, model: str) -> None:
    ours, seen, end = both(name, DENOISERS[model], first(1, HIGH), karras(LOW, HIGH, steps))
    assert len(ours) == len(seen) == steps
    for step, predicted in zip(ours, seen, strict=True):
        close(step.denoised, predicted, 1e-5)
    close(ours[-1].x, end, 1e-5)


@pytest.mark.parametrize("name", sorted(NOISY))
def test_the_noise_matters(name: str) -> None:
    """Without this the trajectories might agree because neither hears the noise."""
    x, sigmas = first(1, HIGH), karras(LOW, HIGH, 9)
    ends = [
        list(SAMPLERS[name](DENOISERS["two Gaussians"], x, sigmas, noise=noise(name, seeds)))[-1].x
        for seeds in ([7, 8], [8, 7])
    ]
    assert float((ends[0] - ends[1]).abs().max()) > 0.1


@pytest.mark.parametrize("model", DENOISERS)
@pytest.mark.parametrize("calls", [2, 3, 4, 8, 9])
def test_dpm_fast(calls: int, model: str) -> None:
    x, sigmas, seen = first(2, HIGH), karras(LOW, HIGH, calls), []
    end = k_diffusion.sampling().sample_dpm_fast(
        DENOISERS[model],
        x,
        np.float64(LOW),
        np.float64(HIGH),
        calls,
        callback=lambda info: seen.append(info["denoised"]),
        disable=True,
    )
    ours = list(SAMPLERS["dpm-fast"](DENOISERS[model], x, sigmas))
    for step, predicted in zip(ours, seen, strict=True):
        close(step.denoised, predicted, 1e-5)
    close(ours[-1].x, end, 1e-5)


@pytest.mark.parametrize("model", DENOISERS)
def test_dpm_adaptive(model: str) -> None:
    """Theirs judges the batch as a whole, so it draws the pictures one by one."""
    x = torch.cat([first(3, HIGH, 1), first(4, HIGH / 30, 1)])
    ours = list(SAMPLERS["dpm-adaptive"](DENOISERS[model], x, karras(LOW, HIGH, 5)))
    tries = []
    for row in range(2):
        seen: list[Tensor] = []
        end = k_diffusion.sampling().sample_dpm_adaptive(
            DENOISERS[model],
            x[row : row + 1],
            np.float64(LOW),
            np.float64(HIGH),
            callback=lambda info, seen=seen: seen.append(info["denoised"]),
            disable=True,
        )
        for step, predicted in zip(ours, seen, strict=False):
            close(step.denoised[row : row + 1], predicted, 1e-5)
        close(ours[-1].x[row : row + 1], end, 1e-5)
        tries.append(len(seen))
    assert max(tries) == len(ours)


@pytest.mark.parametrize("steps", [1, 2, 25])
def test_schedules(steps: int) -> None:
    theirs = k_diffusion.sampling()
    close(karras(LOW, HIGH, steps), theirs.get_sigmas_karras(steps, LOW, HIGH).double(), 1e-6)
    close(exponential(LOW, HIGH, steps), theirs.get_sigmas_exponential(steps, LOW, HIGH).double(), 1e-6)
    for rho in (0.5, 1.0, 2.5):
        levels = theirs.get_sigmas_polyexponential(steps, LOW, HIGH, rho).double()
        close(polyexponential(LOW, HIGH, steps, rho), levels, 1e-6)
