"""Pictures of latents without an autoencoder: a linear map from latent channels to colours, for looking on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

Colour = tuple[float, float, float]

COLOURS: Mapping[tuple[int, float], tuple[Colour, ...]] = MappingProxyType(
    {
        (4, 0.18215): (
            (0.3512, 0.2297, 0.3227),
            (0.325, 0.4974, 0.235),
            (-0.2829, 0.1762, 0.2721),
            (-0.212, -0.2616, -0.7177),
        ),
        (4, 0.13025): (
            (0.392, 0.4054, 0.4549),
            (-0.2634, -0.0196, 0.0653),
            (0.0568, 0.1687, -0.0755),
            (-0.3112, -0.2359, -0.2076),
        ),
    }
)
"""Red, green and blue of each latent channel, by the number of channels and the scaling factor, which tell SD 1 and 2
from SDXL. They are those of ComfyUI's `latent_formats`."""


def linear_preview(latents: Tensor, scaling: float) -> Tensor | None:
    """Latents (B, C, h, w) as small pictures (B, 3, h, w) about [-1, 1]; None where nobody has fitted the colours."""
    colours = COLOURS.get((latents.shape[1], scaling))
    if colours is None:
        return None
    return torch.einsum("bchw,cd->bdhw", latents.float(), torch.tensor(colours, device=latents.device))
