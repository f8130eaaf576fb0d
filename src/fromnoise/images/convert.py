"""Pillow pictures to tensors and back, rounded as diffusers rounds, so that two tools' pictures can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fromnoise.runtime.errors import FromnoiseError


def to_tensor(images: Image.Image | Sequence[Image.Image]) -> Tensor:
    """One picture, or several of one size, as (B, 3, H, W) float32 in [-1, 1]."""
    several = [images] if isinstance(images, Image.Image) else images
    pixels = torch.from_numpy(np.stack([np.array(each.convert("RGB")) for each in several]))
    return pixels.permute(0, 3, 1, 2).contiguous().float() / 255.0 * 2.0 - 1.0


def to_images(pictures: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) about [-1, 1], clamped, as RGB pictures: the nearest byte of 256 (ties to even).

    Raises FromnoiseError when a value is NaN or infinite, which would otherwise come out black.
    """
    pictures = pictures.detach().float().cpu()
    if not bool(torch.isfinite(pictures).all()):
        raise FromnoiseError("the picture has values that are not finite; try float32 or less guidance")
    pixels = ((pictures * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return [Image.fromarray(each) for each in pixels.permute(0, 2, 3, 1).numpy()]
