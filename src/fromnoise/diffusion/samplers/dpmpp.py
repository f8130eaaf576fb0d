"""DPM-Solver++ (Lu et al. 2022, "DPM-Solver++"): exponential integrators that hold the predicted picture still."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers.step import (
    Noise,
    Step,
    ancestral,
    ancestral_split,
    at,
    begin,
    memory,
    remaining,
    renoise,
    state,
    toward,
)


def sample_dpmpp_2m(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M), multistep, second order (Lu et al. 2022, algorithm 2); the last step is first order."""
    return sample_dpmpp_2m_sde(denoise, x, sigmas, noise=None, start=start, eta=0.0)


def sample_dpmpp_2m_sde(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None, start: Step | None = None, eta: float = 1.0
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M), multistep, second order (Lu et al. 2022, eq. 16 and appendix B), midpoint form.

    `eta` scales the noise of the stochastic equation; 0 is the 2M solver.
    """
    x = begin(x, noise, start)
    (before,) = memory(x, start) or (None,)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy, denoised = x, denoise(x, at(x, sigma))
        target = denoised
        if before is not None and sigma_next > 0:
            target = denoised + (denoised - before) / (2 * _ratio(float(sigmas[index - 1]), sigma, sigma_next))
        keep, fresh = sde_split(sigma, sigma_next, eta)
        x = renoise(target + keep * (x - target), noise, fresh, sigma, sigma_next)
        before = denoised
        yield Step(index + 1, sigma, noisy, denoised, x, history=(denoised,), noise_state=state(noise))


def sample_dpmpp_3m_sde(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None, start: Step | None = None, eta: float = 1.0
) -> Iterator[Step]:
    """SDE-DPM-Solver++(3M), multistep, third order: k-diffusion's, after Lu et al. 2022, section 5."""
    x = begin(x, noise, start)
    before = memory(x, start)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy, denoised = x, denoise(x, at(x, sigma))
        keep, fresh = sde_split(sigma, sigma_next, eta)
        x = denoised + keep * (x - denoised)
        if before and sigma_next > 0:
            levels = sigmas[index - len(before) : index + 2].tolist()
            x = x + _bend((denoised, *before), levels, eta)
        x = renoise(x, noise, fresh, sigma, sigma_next)
        before = (denoised, *before[:1])
        yield Step(index + 1, sigma, noisy, denoised, x, history=before, noise_state=state(noise))


def sample_dpmpp_2s_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None, start: Step | None = None, eta: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver++(2S) to below the next level (Lu et al. 2022, algorithm 1, r = 1/2), then fresh noise up to it."""
    return ancestral(denoise, x, sigmas, noise, start, eta, partial(_two_stages, denoise))


def _two_stages(denoise: Denoiser, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """x at sigma_next, toward the picture that is predicted halfway there in log sigma."""
    if sigma_next == 0:
        return denoised
    middle = (sigma * sigma_next) ** 0.5
    return toward(x, denoise(toward(x, denoised, sigma, middle), at(x, middle)), sigma, sigma_next)


def sample_dpmpp_sde(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None, start: Step | None = None, eta: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver++(2S) with noise at its midpoint too: k-diffusion's "DPM++ SDE", r = 1/2.

    Both amounts of noise come from one Brownian path, so the midpoint lies on the way.
    """
    x = begin(x, noise, start)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy, denoised = x, denoise(x, at(x, sigma))
        target = denoised
        if sigma_next > 0:
            middle = (sigma * sigma_next) ** 0.5
            down, up = ancestral_split(sigma, middle, eta)
            halfway = renoise(toward(x, denoised, sigma, down), noise, up, sigma, middle)
            target = denoise(halfway, at(x, middle))
        down, up = ancestral_split(sigma, sigma_next, eta)
        x = renoise(toward(x, target, sigma, down), noise, up, sigma, sigma_next)
        yield Step(index + 1, sigma, noisy, denoised, x, noise_state=state(noise))


def sde_split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """How much of x - denoised is kept, and how much fresh noise is added, by the exact solution of the SDE.

    Lu et al. 2022, eq. 16, with `eta` scaling its noise. On the way to 0 nothing is kept and none added.
    """
    if sigma_next == 0:
        return 0.0, 0.0
    shrink = sigma_next / sigma
    return shrink ** (1 + eta), sigma_next * math.sqrt(1 - shrink ** (2 * eta))


def _ratio(sigma_before: float, sigma: float, sigma_next: float) -> float:
    """The last step's width over this one's, in log sigma."""
    return math.log(sigma_before / sigma) / math.log(sigma / sigma_next)


def _bend(pictures: Sequence[Tensor], levels: Sequence[float], eta: float) -> Tensor:
    """The second-order term from two predicted pictures, newest first, or the second and third from three.

    `levels` are theirs, falling, and then the next one.
    """
    width = math.log(levels[-2] / levels[-1])
    scaled = width * (1 + eta)
    phi_2 = math.expm1(-scaled) / scaled + 1
    phi_3 = phi_2 / scaled - 0.5
    ratios = [math.log(high / low) / width for high, low in zip(levels[-3::-1], levels[-2:0:-1], strict=False)]
    changes = [(new - old) / ratio for new, old, ratio in zip(pictures, pictures[1:], ratios, strict=False)]
    if len(changes) == 1:
        return phi_2 * changes[0]
    curve = (changes[0] - changes[1]) / (ratios[0] + ratios[1])
    return phi_2 * (changes[0] + curve * ratios[0]) - phi_3 * curve
