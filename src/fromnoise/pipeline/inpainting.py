"""What an inpainting network (9 channels) is shown beside the noisy latents: the mask, and what it must not change."""

from __future__ import annotations

import io

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fromnoise.images.convert import to_tensor
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.tiny_autoencoder import TinyAutoencoder
from fromnoise.runtime.errors import UsageError


def open_picture(png: bytes) -> Image.Image:
    """A picture that a request carries; UsageError when the bytes are none."""
    try:
        image = Image.open(io.BytesIO(png))
        image.load()
        return image
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"a picture of this request is damaged: {error}") from error


def read_mask(png: bytes, size: tuple[int, int]) -> Tensor:
    """The mask as (1, 1, H, W), 1 where to draw: what is at least half white (diffusers' rule)."""
    mask = open_picture(png).convert("L")
    if mask.size != size:
        raise UsageError(f"the mask is {mask.size[0]}x{mask.size[1]} and the picture {size[0]}x{size[1]}; resize it")
    return (to_tensor(mask.convert("RGB"))[:, :1] >= 0).float()


def shown(autoencoder: Autoencoder | TinyAutoencoder, mask: Tensor, pixels: Tensor, noise: Tensor) -> Tensor:
    """Mask and masked latents (B, 1 + C, h, w), as Rombach et al. 2022 trained inpainting (section 4.5).

    `pixels` (1, 3, H, W) in [-1, 1]; `noise` (B, C, h, w) samples the latents, as diffusers does.
    """
    kept = pixels * (mask < 0.5)
    small = F.interpolate(mask, size=noise.shape[-2:])
    return torch.cat([small.to(noise).expand(len(noise), -1, -1, -1), autoencoder.encode(kept, noise)], 1)
