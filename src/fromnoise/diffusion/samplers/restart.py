"""Restart sampling (Xu et al. 2023): go back up with fresh noise, and down again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers.second_order import heun_step
from fromnoise.diffusion.samplers.step import Noise, Step, begin, renoise, state

LOW, HIGH = 0.1, 2.0
"""Where the restarts leave from and go back to: the levels of AUTOMATIC1111."""

RHO = 7.0


def sample_restart(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise, start: Step | None = None
) -> Iterator[Step]:
    """Heun's method, and on the way down K times from sigma 0.1 back up to 2 (Xu et al. 2023, algorithm 1).

    Going up adds noise of sqrt(high^2 - low^2) (eq. 4). How often, and with how many steps, is AUTOMATIC1111's rule:
    not at all below 20 steps, once with 9 steps from 20, twice with a quarter of the steps each from 36. The way down
    has so many steps fewer, so that the count asked for is the count run.
    """
    x = begin(x, noise, start)
    plan = restart_plan(sigmas)
    first = 0 if start is None else start.index
    for index, (sigma, sigma_next) in enumerate(plan[first:], first):
        left_at = plan[index - 1][1] if index else sigma
        if sigma > left_at:
            x = renoise(x, noise, (sigma**2 - left_at**2) ** 0.5, left_at, sigma)
        noisy = x
        denoised, x = heun_step(denoise, x, sigma, sigma_next)
        yield Step(index + 1, sigma, noisy, denoised, x, noise_state=state(noise))


def restart_plan(sigmas: Tensor) -> list[tuple[float, float]]:
    """Level and next level of every step, as many as `sigmas` has."""
    steps = len(sigmas) - 1
    times, each = (0, 0) if steps < 20 else (1, 9) if steps < 36 else (2, steps // 4)
    levels = _thinned(sigmas, steps - times * each)
    low, high = (int(np.abs(levels[:-1] - level).argmin()) for level in (LOW, HIGH))
    down = list(pairwise(levels.tolist()))
    if not times or high >= low:
        return list(pairwise(sigmas.tolist()))
    loop = list(pairwise(_rooted(levels[high], levels[low], each + 1).tolist()))
    return down[:low] + loop * times + down[low:]


def _thinned(sigmas: Tensor, steps: int) -> np.ndarray:
    """The same schedule in fewer steps, interpolated in sigma^(1/7), which keeps Karras schedules exactly so."""
    roots = sigmas[:-1].double().cpu().numpy() ** (1 / RHO)
    places = np.linspace(0, len(roots) - 1, steps)
    return np.append(np.interp(places, np.arange(len(roots)), roots) ** RHO, 0.0)


def _rooted(high: float, low: float, count: int) -> np.ndarray:
    """Levels from high to low in even steps of sigma^(1/7) (Karras et al. 2022, eq. 5)."""
    return np.linspace(high ** (1 / RHO), low ** (1 / RHO), count) ** RHO
