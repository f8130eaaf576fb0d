"""UniPC (Zhao et al. 2023): a predictor, and a corrector that costs no call of the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers.step import Noise, Step, at, begin, memory, remaining, toward

Point = tuple[float, Tensor]
"""A level, and the picture predicted there."""


def sample_unipc(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    start: Step | None = None,
    order: int = 2,
) -> Iterator[Step]:
    """Multistep UniPC of `order` p on the predicted picture, B(h) = e^-h - 1 (Zhao et al. 2023, algorithms 5 to 8).

    The corrector raises the order of accuracy to p + 1: the picture predicted at the end of a step corrects that
    step before the next one begins. The first steps and the last have lower orders, as in diffusers.
    """
    x = begin(x, noise, start)
    history = memory(x, start)
    levels = sigmas.tolist()

    def used(index: int) -> int:
        return min(order, index + 1, len(levels) - 1 - index)

    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy, denoised = x, denoise(x, at(x, sigma))
        pictures = history[1:]
        if index > 0:
            points = list(zip(levels[index - 1 :: -1], pictures, strict=False))[: used(index - 1)]
            x = _unified(history[0], sigma, points[0], [*points[1:], (sigma, denoised)])
        pictures = (denoised, *pictures)[:order]
        points = list(zip(levels[index::-1], pictures, strict=False))[: used(index)]
        history = (x, *pictures)
        x = _unified(x, sigma_next, points[0], points[1:])
        yield Step(index + 1, sigma, noisy, denoised, x, history=history)


def _unified(x: Tensor, sigma_next: float, anchor: Point, others: Sequence[Point]) -> Tensor:
    """The unified step from the anchor's level: a predictor if the other points are older, a corrector if one is new.

    Zhao et al. 2023, eq. 3 and 9 in the form of appendix E for predicted pictures, divided by alpha.
    """
    sigma, denoised = anchor
    end = toward(x, denoised, sigma, sigma_next)
    if not others:
        return end
    width = math.log(sigma / sigma_next)
    ratios = [math.log(sigma / level) / width for level, _ in others]
    for (_, picture), ratio, weight in zip(others, ratios, _weights(ratios, width), strict=True):
        end = end - math.expm1(-width) * weight / ratio * (picture - denoised)
    return end


def _weights(ratios: Sequence[float], width: float) -> list[float]:
    """The a_p of Zhao et al. 2023, eq. 5: those that make the step exact for polynomials. For one point it is 1/2."""
    if len(ratios) == 1:
        return [0.5]
    moments, phi = [], math.expm1(-width) / -width - 1
    for power in range(1, len(ratios) + 1):
        moments.append(phi * math.factorial(power) / math.expm1(-width))
        phi = phi / -width - 1 / math.factorial(power + 1)
    powers = np.arange(len(ratios))
    return np.linalg.solve(np.array(ratios)[None, :] ** powers[:, None], moments).tolist()
