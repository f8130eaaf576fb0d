from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler
from diffusers.schedulers import AysSchedules
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution

from fromnoise.diffusion.denoiser import PREDICTIONS, denoiser, scalings
from fromnoise.diffusion.objectives import example
from fromnoise.diffusion.schedules import BETAS, SPACINGS, NoiseSchedule, align_your_steps, karras, polyexponential
from fromnoise.diffusion.schedules_beta import beta_quantile
from fromnoise.runtime.errors import FromnoiseError

SCHEDULE = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012)
SCHEDULES = {
    "scaled_linear": SCHEDULE,
    "squaredcos_cap_v2": NoiseSchedule.from_betas("squaredcos_cap_v2", 0.0, 0.0),
    "zero terminal": SCHEDULE.zero_terminal(),
}


@pytest.mark.parametrize(
    ("kind", "start", "end", "count"),
    [
        ("linear", "a", 0.012, 1000),
        ("scaled_linear", -0.1, 0.012, 1000),
        ("linear", 0.1, float("nan"), 1000),
        ("linear", 0.1, 0.2, 10**12),
        ("linear", 0.1, 0.2, 0),
        ("linear", 0.1, 0.2, 9.5),
        ({}, 0.1, 0.2, 1000),
    ],
)
def test_what_is_no_schedule_is_named(kind: Any, start: Any, end: Any, count: Any) -> None:
    with pytest.raises(FromnoiseError, match=r"beta|num_train_timesteps"):
        NoiseSchedule.from_betas(kind, start, end, count)


@pytest.mark.parametrize("betas", ["many", {}, [], [0.1, "a"], [[0.1, 0.2]], [0.1, 7.0], 5])
def test_betas_are_a_list_of_numbers(betas: Any) -> None:
    with pytest.raises(FromnoiseError, match="trained_betas"):
        NoiseSchedule.from_trained_betas(betas)


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


@pytest.mark.parametrize("kind", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_schedules_between_the_ends_are_those_of_diffusers(kind: str, steps: int) -> None:
    theirs = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **{f"use_{kind}_sigmas": True}
    )
    theirs.set_timesteps(steps)
    torch.testing.assert_close(SPACINGS[kind](SCHEDULE, steps, 0).float(), theirs.sigmas, rtol=1e-4, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 50])
def test_lcm_timesteps_are_those_of_diffusers(steps: int) -> None:
    theirs = LCMScheduler()
    theirs.set_timesteps(steps)
    assert SCHEDULE.time(SPACINGS["lcm"](SCHEDULE, steps, 0)[:-1]).round().long().tolist() == theirs.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 7, 25, 200])
def test_schedules_of_the_web_uis(steps: int) -> None:
    """`simple`, `normal` and `sgm-uniform` restated one level at a time, as ComfyUI and AUTOMATIC1111 define them."""

    def in_log(time: float) -> float:
        low = min(int(time), 998)
        logs = SCHEDULE.sigmas[low : low + 2].log()
        return float((logs[0] + (time - low) * (logs[1] - logs[0])).exp())

    last = 999.0
    expected = {
        "simple": [float(SCHEDULE.sigmas[-(1 + int(k * (1000 / steps)))]) for k in range(steps)],
        "normal": [in_log(last * (1 - k / (steps - 1))) for k in range(steps)],
        "sgm-uniform": [in_log(last * (1 - k / steps)) for k in range(steps)],
        "ddim-uniform": [float(SCHEDULE.sigmas[1 + k * (1000 // steps)]) for k in reversed(range(steps))],
    }
    for name, levels in expected.items():
        assert SPACINGS[name](SCHEDULE, steps, 0).tolist() == pytest.approx([*levels, 0.0], rel=1e-9), name


def test_align_your_steps_as_published() -> None:
    """At ten steps the authors' own levels, which are those of their timesteps."""
    levels = align_your_steps("sd15", 10)
    times = torch.tensor(AysSchedules["StableDiffusionTimesteps"])
    torch.testing.assert_close(SCHEDULE.sigma(times), levels[:-1], rtol=5e-3, atol=0)
    sdxl = AysSchedules["StableDiffusionXLSigmas"]
    assert align_your_steps("sdxl", 10).tolist() == pytest.approx(sdxl, rel=1e-9)
    doubled = align_your_steps("sd15", 20)
    torch.testing.assert_close(doubled[::2], levels)
    torch.testing.assert_close(doubled[1], (levels[0] * levels[1]).sqrt())


@settings(deadline=None)
@given(st.integers(1, 200), st.sampled_from(sorted(SPACINGS)), st.sampled_from(sorted(SCHEDULES)), st.integers(0, 1))
def test_every_schedule_falls_to_zero(steps: int, name: str, schedule: str, offset: int) -> None:
    sigmas = SPACINGS[name](SCHEDULES[schedule], steps, offset)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float64
    assert sigmas[-1] == 0
    assert bool(torch.isfinite(sigmas).all())
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize("name", ["leading", "trailing", "simple", "lcm", "ddim-uniform"])
def test_every_timestep_can_be_visited(name: str) -> None:
    sigmas = SPACINGS[name](SCHEDULE, 1000, 1)
    torch.testing.assert_close(sigmas[:-1].flip(0), SCHEDULE.sigmas)


@given(st.floats(0.0, 999.0))
def test_time_is_the_inverse_of_sigma(time: float) -> None:
    there = SCHEDULE.sigma(torch.tensor([time], dtype=torch.float64))
    assert float(SCHEDULE.time(there)) == pytest.approx(time, abs=1e-3)


def test_karras_ends() -> None:
    sigmas = karras(0.1, 10.0, 5)
    assert sigmas[[0, 4, 5]].tolist() == pytest.approx([10.0, 0.1, 0.0])


def test_polyexponential_by_hand() -> None:
    """Halfway at rho 2 a quarter of the logarithm is left: 0.01 * 10000^(1/4) = 0.1."""
    assert polyexponential(0.01, 100.0, 3, rho=2.0).tolist() == pytest.approx([100.0, 0.1, 0.01, 0.0])


@pytest.mark.parametrize("alpha", [0.3, 0.6, 1.0, 2.5])
def test_beta_quantiles_are_those_of_scipy(alpha: float) -> None:
    shares = torch.linspace(0, 1, 401, dtype=torch.float64)
    expected = torch.from_numpy(beta_distribution.ppf(shares.numpy(), alpha, alpha))
    torch.testing.assert_close(beta_quantile(shares, alpha), expected, rtol=1e-8, atol=1e-12)


def test_more_steps_than_timesteps_is_an_error() -> None:
    for name in ("trailing", "leading", "simple", "lcm"):
        with pytest.raises(FromnoiseError, match="ask for fewer"):
            SPACINGS[name](SCHEDULE, 1001, 1)


@pytest.mark.parametrize("kind", BETAS)
def test_training_schedules_are_those_of_diffusers(kind: str) -> None:
    theirs = DDIMScheduler(beta_schedule=kind, beta_start=0.001, beta_end=0.015)
    ours = NoiseSchedule.from_betas(kind, 0.001, 0.015)
    torch.testing.assert_close(ours.sigmas, theirs_sigmas(theirs), rtol=1e-4, atol=0)
    again = NoiseSchedule.from_trained_betas(theirs.betas.tolist())
    torch.testing.assert_close(again.sigmas, theirs_sigmas(theirs), rtol=1e-4, atol=0)


def theirs_sigmas(scheduler: Any) -> torch.Tensor:
    kept = (1 - scheduler.betas.double()).cumprod(0)
    return ((1 - kept) / kept).sqrt()


def test_unknown_training_schedule_is_an_error() -> None:
    with pytest.raises(FromnoiseError, match="squaredcos_cap_v2"):
        NoiseSchedule.from_betas("sigmoid", 0.1, 0.2)


def test_zero_terminal_snr_is_that_of_diffusers() -> None:
    theirs = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=True
    )
    kept = theirs.alphas_cumprod.double()
    ours = SCHEDULE.zero_terminal()
    torch.testing.assert_close((1 / (1 + ours.sigmas**2)).sqrt(), kept.sqrt(), rtol=0, atol=1e-6)
    assert float(ours.sigmas[-1]) == pytest.approx(4096, rel=1e-6)
    assert float(ours.sigmas[0]) == pytest.approx(float(SCHEDULE.sigmas[0]), rel=1e-9)
    assert torch.equal(ours.zero_terminal().sigmas, ours.sigmas)
    assert torch.equal(SPACINGS["zero-terminal-snr"](SCHEDULE, 9, 0), SPACINGS["trailing"](ours, 9, 0))


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
