"""Guidance makes a Denoiser from Denoisers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser

Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Noisy latents and sigma to two denoised pictures: with the prompt, and without (or with the negative one)."""


def pair(conditional: Denoiser, unconditional: Denoiser) -> Pair:
    """Two denoisers, called one after the other."""
    return lambda x, sigma: (conditional(x, sigma), unconditional(x, sigma))


def batched_pair(joint: Denoiser) -> Pair:
    """One denoiser called once on a batch of twice the size, whose first half is the unconditional one."""

    def both(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        unconditional, conditional = joint(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return conditional, unconditional

    return both


def classifier_free(denoise: Pair, scale: float) -> Denoiser:
    """Go `scale` times as far from the unconditional picture as the prompt does (Ho & Salimans 2022, eq. 6).

    At 1 the prompt alone speaks, at 0 it is not heard. Works on the predicted picture, which for epsilon and v models
    is the same as working on the network's output.
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        conditional, unconditional = denoise(x, sigma)
        return unconditional + scale * (conditional - unconditional)

    return guided
