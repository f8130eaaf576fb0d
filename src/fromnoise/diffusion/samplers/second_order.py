"""Samplers that call the network twice a step: second order, and nothing to remember."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers.step import Noise, Step, ancestral, at, begin, remaining, slope, toward


def heun_step(denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
    """The picture predicted at sigma, and x at sigma_next by the mean of both ends' slopes (Euler's at 0)."""
    denoised = denoise(x, at(x, sigma))
    straight = toward(x, denoised, sigma, sigma_next)
    if sigma_next == 0:
        return denoised, straight
    first = slope(x, denoised, sigma)
    second = slope(straight, denoise(straight, at(x, sigma_next)), sigma_next)
    return denoised, x + (first + second) / 2 * (sigma_next - sigma)


def sample_heun(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """Heun's method: the mean of the slopes at both ends, second order (Karras et al. 2022, algorithm 1)."""
    x = begin(x, noise, start)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy = x
        denoised, x = heun_step(denoise, x, sigma, sigma_next)
        yield Step(index + 1, sigma, noisy, denoised, x)


def _midpoint(denoise: Denoiser, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """x at sigma_next by the slope halfway in log sigma; at 0 the predicted picture."""
    if sigma_next == 0:
        return denoised
    middle = (sigma * sigma_next) ** 0.5
    halfway = toward(x, denoised, sigma, middle)
    return x + slope(halfway, denoise(halfway, at(x, middle)), middle) * (sigma_next - sigma)


def sample_dpm2(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """The slope halfway in log sigma, taken over the whole step: k-diffusion's "DPM2".

    After DPM-Solver-2 (Lu et al. 2022, algorithm 1) and Karras et al. 2022, algorithm 2, without its churn.
    """
    return sample_dpm2_ancestral(denoise, x, sigmas, noise=None, start=start, eta=0.0)


def sample_dpm2_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None, start: Step | None = None, eta: float = 1.0
) -> Iterator[Step]:
    """DPM2 to below the next level, then fresh noise up to it: k-diffusion's "DPM2 a"."""
    return ancestral(denoise, x, sigmas, noise, start, eta, partial(_midpoint, denoise))
