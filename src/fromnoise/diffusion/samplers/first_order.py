"""Samplers that call the network once a step and remember nothing."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers.step import Noise, Step, ancestral, at, begin, remaining, renoise, state, toward


def sample_euler(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """Euler's method on the probability-flow equation (Karras et al. 2022, algorithm 1 without its second half)."""
    return ancestral(denoise, x, sigmas, None, start, 0.0, toward)


def sample_ddim(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """DDIM with eta 0 (Song et al. 2020, eq. 12): in sigma the same step as Euler's, and no noise."""
    return ancestral(denoise, x, sigmas, None, start, 0.0, toward)


def sample_euler_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise, start: Step | None = None
) -> Iterator[Step]:
    """Step below the next level and add fresh noise up to it: DDIM with eta 1, k-diffusion's "Euler a"."""
    return ancestral(denoise, x, sigmas, noise, start, 1.0, toward)


def sample_ddpm(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise, start: Step | None = None
) -> Iterator[Step]:
    """DDPM's own sampling (Ho et al. 2020, eq. 6 and 7), with the posterior's variance.

    The posterior of x / alpha has the mean and the variance of Euler a's step, so in sigma the two are one and only
    the first x differs (`VARIANCE_PRESERVING`).
    """
    return ancestral(denoise, x, sigmas, noise, start, 1.0, toward)


def sample_lcm(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise, start: Step | None = None
) -> Iterator[Step]:
    """Multistep consistency sampling (Luo et al. 2023, algorithm 3): take the predicted picture, make it noisy again.

    For models distilled to jump (LCM). Their boundary scalings c_skip and c_out (eq. 9) differ from 0 and 1 by less
    than 1e-5 above timestep 16 and are left out.
    """
    x = begin(x, noise, start)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy, denoised = x, denoise(x, at(x, sigma))
        x = renoise(denoised, noise, sigma_next, sigma, sigma_next)
        yield Step(index + 1, sigma, noisy, denoised, x, noise_state=state(noise))
