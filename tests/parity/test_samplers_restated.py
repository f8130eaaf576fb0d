"""Samplers that no library at hand has, against their papers' equations written out again."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers import SAMPLERS, GuidedPair
from fromnoise.diffusion.schedules import SPACINGS, karras
from fromnoise.runtime.seeds import PictureNoise
from tests.parity import k_diffusion
from tests.parity.denoisers import DENOISERS, SCHEDULE, SHAPE, close, first, small_unet, two_gaussians

HIGH, LOW = 14.6, 0.03


def guided_pair(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Guided and unconditional pictures that differ much."""
    unconditional = two_gaussians(x, sigma)
    return unconditional + 0.6 * (small_unet(x, sigma) - unconditional), unconditional


def ddim_cfg_pp(model: GuidedPair, unit: Tensor, sigmas: Tensor) -> Tensor:
    """Chung et al. 2024, algorithm 2, in its own variables: x at unit variance, alpha-bar, epsilon."""
    kept = 1 / (1 + sigmas**2)
    for now, after in pairwise(kept):
        sigma = ((1 - now) / now).sqrt().expand(len(unit))
        guided, unconditional = model(unit / now.sqrt(), sigma)
        epsilon = (unit - now.sqrt() * unconditional) / (1 - now).sqrt()
        unit = after.sqrt() * guided + (1 - after).sqrt() * epsilon
    return unit


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_euler_cfg_pp(steps: int) -> None:
    sigmas = SPACINGS["trailing"](SCHEDULE, steps, 0)
    x = first(6, HIGH)
    ours = list(SAMPLERS["euler-cfg-pp"](guided_pair, x, sigmas))[-1].x
    close(ours, ddim_cfg_pp(guided_pair, x / (1 + sigmas[0] ** 2).sqrt(), sigmas), 1e-9)


def dpmpp_2m_cfg_pp(model: GuidedPair, x: Tensor, sigmas: Tensor) -> Tensor:
    """In lambda = -log sigma: k-diffusion's 2M step of the unconditional pictures, and on top what guidance adds."""
    lambdas, before = [-math.log(each) if each else math.inf for each in sigmas.tolist()], None
    for index in range(len(sigmas) - 1):
        guided, unconditional = model(x, sigmas[index].expand(len(x)))
        width, mean = lambdas[index + 1] - lambdas[index], unconditional
        if before is not None and width < math.inf:
            half = width / (2 * (lambdas[index] - lambdas[index - 1]))
            mean = (1 + half) * unconditional - half * before
        x = math.exp(-width) * x + (1 - math.exp(-width)) * mean + (guided - unconditional)
        before = unconditional
    return x


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_dpmpp_2m_cfg_pp(steps: int) -> None:
    x, sigmas = first(6, HIGH), karras(LOW, HIGH, steps)
    ours = list(SAMPLERS["dpmpp-2m-cfg-pp"](guided_pair, x, sigmas))[-1].x
    close(ours, dpmpp_2m_cfg_pp(guided_pair, x, sigmas), 1e-9)


@pytest.mark.parametrize(("name", "plain"), [("euler-cfg-pp", "euler"), ("dpmpp-2m-cfg-pp", "dpmpp-2m")])
def test_cfg_pp_without_guidance_is_the_plain_sampler(name: str, plain: str) -> None:
    x, sigmas = first(6, HIGH), karras(LOW, HIGH, 9)

    def alike(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return two_gaussians(x, sigma), two_gaussians(x, sigma)

    ours = list(SAMPLERS[name](alike, x, sigmas))[-1].x
    close(ours, list(SAMPLERS[plain](two_gaussians, x, sigmas))[-1].x, 1e-12)


def restart(model: Denoiser, x: Tensor, noise: PictureNoise, down: int, times: int, loop: int) -> Tensor:
    """Xu et al. 2023, algorithm 1, with `down` Karras steps, and `times` loops of `loop` from 0.1 to 2 and back."""
    sample, levels = k_diffusion.sampling().sample_heun, karras(LOW, HIGH, down)
    low, high = (int((levels[:-1] - level).abs().argmin()) for level in (0.1, 2.0))
    x = sample(model, x, levels[: low + 1], disable=True)
    for _ in range(times):
        fresh = noise().double() * (levels[high] ** 2 - levels[low] ** 2).sqrt()
        again = karras(float(levels[low]), float(levels[high]), loop + 1)[:-1]
        x = sample(model, x + fresh, again, disable=True)
    return sample(model, x, levels[low:], disable=True)


@pytest.mark.parametrize(
    ("model", "steps", "times", "loop"),
    [("two Gaussians", 12, 0, 0), ("two Gaussians", 20, 1, 9), ("two Gaussians", 37, 2, 9), ("small U-Net", 20, 1, 9)],
)
def test_restart(model: str, steps: int, times: int, loop: int) -> None:
    x = first(8, HIGH)
    ours = list(SAMPLERS["restart"](DENOISERS[model], x, karras(LOW, HIGH, steps), noise=PictureNoise([7, 8], SHAPE)))
    theirs = restart(DENOISERS[model], x, PictureNoise([7, 8], SHAPE), steps - times * loop, times, loop)
    assert len(ours) == steps
    close(ours[-1].x, theirs, 1e-6)


def test_lms_weights_by_hand() -> None:
    """Two slopes over steps of width 1 and then 2: 2 (f0 + (f0 - f1) / 1 * 1) = 4 f0 - 2 f1."""
    sigmas = torch.tensor([5.0, 4.0, 2.0], dtype=torch.float64)
    answers = iter([torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)])
    x = torch.full((1, 1, 1, 1), 10.0, dtype=torch.float64)
    steps = list(SAMPLERS["lms"](lambda x, sigma: next(answers).double(), x, sigmas))
    f1, middle = 10 / 5, 10 - 10 / 5
    f0 = (middle - 2) / 4
    assert float(steps[-1].x) == pytest.approx(middle - (4 * f0 - 2 * f1))
