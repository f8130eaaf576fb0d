from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.diffusion.denoiser import PREDICTIONS, denoiser, scalings
from fromnoise.diffusion.objectives import example
from fromnoise.diffusion.schedules import SPACINGS, NoiseSchedule, karras
from fromnoise.runtime.errors import FromnoiseError

SCHEDULE = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [1, 3, 7, 25, 50])
def test_spacings_are_those_of_diffusers(spacing: str, steps: int) -> None:
    theirs = EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing=spacing,
        steps_offset=1,
    )
    theirs.set_timesteps(steps)
    ours = SPACINGS[spacing](SCHEDULE, steps, 1)
    torch.testing.assert_close(ours.float(), theirs.sigmas, rtol=3e-5, atol=0)
    torch.testing.assert_close(SCHEDULE.time(ours[:-1]), theirs.timesteps.float(), rtol=1e-5, atol=2e-3)


@given(st.integers(1, 200), st.sampled_from(sorted(SPACINGS)))
def test_every_schedule_falls_to_zero(steps: int, name: str) -> None:
    sigmas = SPACINGS[name](SCHEDULE, steps, 1)
    assert sigmas.shape == (steps + 1,)
    assert sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())


@given(st.floats(0.0, 999.0))
def test_time_is_the_inverse_of_sigma(time: float) -> None:
    there = SCHEDULE.sigma(torch.tensor([time], dtype=torch.float64))
    assert float(SCHEDULE.time(there)) == pytest.approx(time, abs=1e-3)


def test_karras_ends() -> None:
    sigmas = karras(0.1, 10.0, 5)
    assert sigmas[[0, 4, 5]].tolist() == pytest.approx([10.0, 0.1, 0.0])


def test_more_steps_than_timesteps_is_an_error() -> None:
    with pytest.raises(FromnoiseError, match="ask for fewer"):
        SPACINGS["trailing"](SCHEDULE, 1001, 1)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_denoises_perfectly(prediction: str) -> None:
    """The objective's target put through the sampler's scalings gives the clean picture back."""
    clean, noise = torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    sigma = torch.tensor([0.05, 1.0, 14.0])
    made = example(clean, noise, sigma, prediction, None)
    denoised = denoiser(lambda x, time: made.target, SCHEDULE, prediction)(
        clean + sigma[:, None, None, None] * noise, sigma
    )
    torch.testing.assert_close(denoised, clean, rtol=1e-4, atol=1e-4)


def test_targets_are_what_the_papers_say() -> None:
    clean, noise, sigma = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3), torch.tensor([0.3, 4.0])
    torch.testing.assert_close(example(clean, noise, sigma, "epsilon").target, noise, rtol=1e-4, atol=1e-5)
    alpha = (1 / (1 + sigma**2)).sqrt()[:, None, None, None]
    v = alpha * noise - (1 - alpha**2).sqrt() * clean
    torch.testing.assert_close(example(clean, noise, sigma, "v_prediction").target, v, rtol=1e-4, atol=1e-5)


def test_min_snr_weight_of_v() -> None:
    """min(SNR, gamma) / (SNR + 1), Hang et al. 2023, for v-prediction."""
    sigma = torch.tensor([0.1, 1.0, 10.0])
    snr = sigma**-2
    weight = example(torch.zeros(3, 1, 1, 1), torch.zeros(3, 1, 1, 1), sigma, "v_prediction", 5.0).weight
    torch.testing.assert_close(weight, snr.clamp(max=5.0) / (snr + 1))


def test_unknown_prediction_is_an_error() -> None:
    with pytest.raises(FromnoiseError, match="epsilon, v_prediction"):
        scalings("sample", torch.ones(1))
