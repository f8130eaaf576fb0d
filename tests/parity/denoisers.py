"""Denoisers for whole trajectories: one known exactly, and a small U-Net with random weights. Both in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser, denoiser
from fromnoise.diffusion.schedules import NoiseSchedule
from fromnoise.models.unet import UNet
from tests.tiny import UNET, randomise

SHAPE = (4, 8, 8)
SCHEDULE = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012)


def two_gaussians(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    """The exact denoiser of two unequal Gaussians, which bends the path."""
    centres = torch.tensor([1.5, -0.5], dtype=x.dtype)
    spread = 0.25 + sigma[:, None, None, None] ** 2
    pull = torch.stack([-((x - centre) ** 2) / (2 * spread) for centre in centres]).softmax(0)
    means = [(0.25 * x + (spread - 0.25) * centre) / spread for centre in centres]
    return pull[0] * means[0] + pull[1] * means[1]


@cache
def _unet() -> Denoiser:
    net = randomise(UNet(UNET)).double().requires_grad_(False)
    words = torch.randn(1, 7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return denoiser(lambda x, time: net(x, time, words.expand(len(x), -1, -1)), SCHEDULE, "v_prediction")


def small_unet(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    """A v-prediction network over Stable Diffusion's timesteps; what it predicts depends on every pixel."""
    return _unet()(x, sigma)


DENOISERS = {"two Gaussians": two_gaussians, "small U-Net": small_unet}


def first(seed: int, sigma: float, count: int = 2) -> Tensor:
    """The noise to begin with, (count, *SHAPE) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, dtype=torch.float64, generator=generator) * sigma


def close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Equal within `tolerance` of the largest magnitude."""
    difference, size = float((ours - theirs).abs().max()), float(theirs.abs().max())
    assert difference <= tolerance * size, f"{difference / size:.2g} of the largest magnitude"
