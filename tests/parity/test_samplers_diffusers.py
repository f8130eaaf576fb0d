"""Our samplers against diffusers' schedulers over whole trajectories, with the same noise."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import DDPMScheduler, LCMScheduler, PNDMScheduler, UniPCMultistepScheduler
from diffusers.schedulers import scheduling_ddpm, scheduling_lcm
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers import SAMPLERS
from fromnoise.diffusion.schedules import SPACINGS
from fromnoise.runtime.seeds import PictureNoise
from tests.parity.denoisers import DENOISERS, SCHEDULE, SHAPE, close, first

CONFIG: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def drive(scheduler: Any, model: Denoiser, unit: Tensor) -> list[Tensor]:
    """Every `prev_sample` of a scheduler whose latents have unit variance, beginning from unit noise."""
    sample, samples = unit, []
    for time in scheduler.timesteps:
        sigma = SCHEDULE.sigma(time[None])
        scale = (1 + sigma**2).sqrt()
        epsilon = (sample * scale - model(sample * scale, sigma.expand(len(sample)))) / sigma
        sample = scheduler.step(epsilon, time, sample).prev_sample
        samples.append(sample)
    return samples


def compare(name: str, model: Denoiser, sigmas: Tensor, theirs: list[Tensor], **fields: Any) -> None:
    """Every step of ours, beginning from the same noise, against every sample of theirs."""
    begin = first(5, 1.0) * (1 + float(sigmas[0]) ** 2) ** 0.5
    ours = list(SAMPLERS[name](model, begin, sigmas, **fields))
    for step, sample, sigma in zip(ours, theirs, sigmas[1:], strict=True):
        close(step.x, sample * (1 + sigma**2).sqrt(), 1e-4)


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their schedulers draw what ours do."""
    source = PictureNoise([7, 8], SHAPE)
    for module in (scheduling_ddpm, scheduling_lcm):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: source().double())


@pytest.mark.parametrize("model", DENOISERS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_unipc(steps: int, order: int, model: str) -> None:
    scheduler = UniPCMultistepScheduler(**CONFIG, solver_order=order, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    sigmas = SPACINGS["trailing"](SCHEDULE, steps, 0)
    scheduler.sigmas = sigmas
    theirs = drive(scheduler, DENOISERS[model], first(5, 1.0))
    compare("unipc", DENOISERS[model], sigmas, theirs, order=order)


@pytest.mark.parametrize("model", DENOISERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10])
def test_plms(steps: int, model: str) -> None:
    scheduler = PNDMScheduler(**CONFIG, skip_prk_steps=True, set_alpha_to_one=True, steps_offset=1)
    scheduler.alphas_cumprod = 1 / (1 + SCHEDULE.sigmas**2)
    scheduler.set_timesteps(steps)
    theirs = drive(scheduler, DENOISERS[model], first(5, 1.0))
    compare("plms", DENOISERS[model], SPACINGS["leading"](SCHEDULE, steps, 1), theirs[-steps:])


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize("model", DENOISERS)
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_ddpm(steps: int, model: str) -> None:
    scheduler = DDPMScheduler(**CONFIG, clip_sample=False, steps_offset=1)
    scheduler.alphas_cumprod = 1 / (1 + SCHEDULE.sigmas**2)
    scheduler.set_timesteps(steps)
    theirs = drive(scheduler, DENOISERS[model], first(5, 1.0))
    noise = PictureNoise([7, 8], SHAPE)
    compare("ddpm", DENOISERS[model], SPACINGS["leading"](SCHEDULE, steps, 1), theirs, noise=noise)


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize("model", DENOISERS)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_lcm(steps: int, model: str) -> None:
    scheduler = LCMScheduler(**CONFIG)
    scheduler.alphas_cumprod = 1 / (1 + SCHEDULE.sigmas**2)
    scheduler.set_timesteps(steps)
    theirs = drive(scheduler, DENOISERS[model], first(5, 1.0))
    noise = PictureNoise([7, 8], SHAPE)
    compare("lcm", DENOISERS[model], SPACINGS["lcm"](SCHEDULE, steps, 0), theirs, noise=noise)
