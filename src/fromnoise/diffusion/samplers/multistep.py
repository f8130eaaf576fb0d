"""Linear multistep samplers: a polynomial through the slopes of the last steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers.step import Noise, Step, at, begin, memory, remaining, slope

ORDER = 4
"""Slopes used by both, once there are so many."""

ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Weights of the newest slope, the one before and so on, for steps of equal width."""


def sample_lms(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """Adams-Bashforth of order 4 in sigma, exact for steps of unequal width: k-diffusion's "LMS".

    The first three steps have fewer slopes to go by, the first one being Euler's.
    """
    x = begin(x, noise, start)
    slopes = memory(x, start)
    levels = sigmas.tolist()
    for index, sigma, _ in remaining(sigmas, start):
        noisy, denoised = x, denoise(x, at(x, sigma))
        slopes = (slope(x, denoised, sigma), *slopes)[:ORDER]
        widths = _integrals(levels[index + 1 - len(slopes) : index + 2])
        x = x + _mixed(slopes, widths)
        slopes = slopes[: ORDER - 1]
        yield Step(index + 1, sigma, noisy, denoised, x, history=slopes)


def sample_plms(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """Pseudo linear multistep (Liu et al. 2022, "PNDM", eq. 9 and 12): Adams-Bashforth as if steps were of one width.

    The first step is Heun's instead of Runge-Kutta's, as in latent diffusion and in diffusers' `skip_prk_steps`.
    Eq. 9 in sigma is x + (sigma_next - sigma) epsilon.
    """
    x = begin(x, noise, start)
    slopes = memory(x, start)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy, denoised = x, denoise(x, at(x, sigma))
        slopes = (slope(x, denoised, sigma), *slopes)[:ORDER]
        mean = _mixed(slopes, ADAMS_BASHFORTH[len(slopes)])
        if index == 0 and sigma_next > 0:
            ahead = x + (sigma_next - sigma) * mean
            mean = (mean + slope(ahead, denoise(ahead, at(x, sigma_next)), sigma_next)) / 2
        x = x + (sigma_next - sigma) * mean
        slopes = slopes[: ORDER - 1]
        yield Step(index + 1, sigma, noisy, denoised, x, history=slopes)


def _mixed(slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum, newest first."""
    total = slopes[0] * weights[0]
    for each, weight in zip(slopes[1:], weights[1:], strict=True):
        total = total + each * weight
    return total


def _integrals(levels: Sequence[float]) -> list[float]:
    """Integrals of the Lagrange polynomials on all levels but the last, over the last step; newest level first.

    They are the weights that integrate 1, s, s^2, … exactly; s counts from the newest level in widths of the step.
    """
    width = levels[-1] - levels[-2]
    places = (np.array(levels[-2::-1]) - levels[-2]) / width
    powers = np.arange(len(places))
    return (width * np.linalg.solve(places[None, :] ** powers[:, None], 1 / (powers + 1))).tolist()
