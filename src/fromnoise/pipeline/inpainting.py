"""Drawing inside a mask: what is drawn where, what the network is shown of the rest, and how it all goes back in."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fromnoise.diffusion.blending import Seen, at_unit_variance, noisy
from fromnoise.images.masks import (
    Box,
    blurred,
    inner_feather,
    outer_feather,
    pasted,
    require_some,
    surroundings,
    two_tone,
)
from fromnoise.images.opening import nearest_size
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.tiny_autoencoder import TinyAutoencoder
from fromnoise.request import SAMPLERS, Request
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.likeness import ON_TIMESTEPS

LARGEST = 2.5
"""A picture with a mask is drawn at its own size up to so many times the area that the model was trained on."""

Cells = Callable[[Image.Image, int, tuple[int, int]], Tensor]
"""A mask, its blur and the latents' (height, width) to how much of each latent is drawn, (1, 1, h, w) in [0, 1]."""


def any_pixel(mask: Image.Image, blur: int, shape: tuple[int, int]) -> Tensor:
    """Every latent of which a pixel is white, so that thin masks are drawn too."""
    return F.adaptive_max_pool2d(_as_tensor(mask), shape)


def corner_pixel(mask: Image.Image, blur: int, shape: tuple[int, int]) -> Tensor:
    """Every latent whose upper left pixel is white: diffusers' `prepare_mask_latents`."""
    return F.interpolate(_as_tensor(mask), size=shape)


def smooth(mask: Image.Image, blur: int, shape: tuple[int, int]) -> Tensor:
    """The mask made smaller, with greys at its edge: ComfyUI's `reshape_mask` (`comfy/utils.py`)."""
    return F.interpolate(_as_tensor(mask), size=shape, mode="bilinear")


def rounded(mask: Image.Image, blur: int, shape: tuple[int, int]) -> Tensor:
    """The blurred mask made smaller and rounded: the web UI's `StableDiffusionProcessingImg2Img.init`."""
    small = blurred(mask, blur).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return _as_tensor(small).round()


@dataclass(frozen=True)
class Rule:
    """A tool's way with masks. `pastes` says that the picture's own pixels are put back where nothing is drawn.

    `seen(sampler)` is what the network is shown of what is kept. `both_sides` feathers on both sides of the mask's
    edge, and so changes what isn't masked. `all_networks` keeps the latents of inpainting networks too, which see them
    anyway; otherwise only those of ordinary ones are kept. `noise_alone` starts from noise at strength 1.
    """

    cells: Cells
    pastes: bool
    seen: Callable[[str], Seen | None] = lambda sampler: noisy
    both_sides: bool = False
    all_networks: bool = False
    noise_alone: bool = True


def web_ui_seen(sampler: str) -> Seen | None:
    """The web UI blends into the predicted picture alone; for samplers on timesteps into the noisy one, noiseless."""
    return at_unit_variance if SAMPLERS[sampler] in ON_TIMESTEPS else None


RULES: Mapping[str | None, Rule] = MappingProxyType(
    {
        None: Rule(any_pixel, pastes=True),
        "diffusers": Rule(corner_pixel, pastes=False),
        "a1111": Rule(rounded, pastes=True, seen=web_ui_seen, both_sides=True, all_networks=True, noise_alone=False),
        "comfyui": Rule(smooth, pastes=False, all_networks=True, noise_alone=False),
    }
)
"""By a Request's `like`. Facts from diffusers' StableDiffusionInpaintPipeline; the web UI's `modules/processing.py`,
`modules/sd_samplers_cfg_denoiser.py`; and ComfyUI's `KSamplerX0Inpaint` (`comfy/samplers.py`)."""


@dataclass(frozen=True)
class Inpainting:
    """A request's picture and mask: the `box` of the picture that is drawn, at `size`, and put back."""

    picture: Image.Image
    mask: Image.Image
    size: tuple[int, int]
    padding: int | None
    blur: int
    rule: Rule

    @classmethod
    def of(cls, request: Request) -> Inpainting:
        """From a request with a mask and a size. UsageError for a mask that doesn't fit or has nothing to draw."""
        assert request.init is not None and request.mask is not None and request.size is not None
        picture = open_picture(request.init)
        mask = open_mask(request.mask, picture.size)
        rule = RULES[request.like]
        return cls(picture, mask, request.size, request.mask_padding, request.mask_blur, rule)

    @cached_property
    def box(self) -> Box:
        """The whole picture, or the mask with its padding."""
        if self.padding is None:
            return 0, 0, *self.picture.size
        return surroundings(self.mask, self.padding, self.size)

    def shown(self) -> Image.Image:
        """What is drawn on, at the size to draw."""
        return _fitted(self.picture.convert("RGB").crop(self.box), self.size, Image.Resampling.LANCZOS)

    def shown_mask(self) -> Image.Image:
        """The mask of it."""
        return two_tone(_fitted(self.mask.crop(self.box), self.size, Image.Resampling.LANCZOS))

    def drawn(self, shape: tuple[int, int]) -> Tensor:
        """How much of each latent is drawn, (1, 1, h, w)."""
        return self.rule.cells(self.shown_mask(), self.blur, shape)

    def finish(self, drawn: Image.Image) -> Image.Image:
        """The picture with what was drawn in it; where a tool doesn't put its pixels back, what was drawn."""
        if not self.rule.pastes and self.padding is None:
            return _fitted(drawn, self.picture.size, Image.Resampling.LANCZOS)
        return pasted(drawn, self.picture, self.box, self._edge())

    def _edge(self) -> Image.Image:
        if not self.blur or not self.rule.both_sides:
            return inner_feather(self.mask, self.blur)
        return (outer_feather if self.padding is None else blurred)(self.mask, self.blur)


def drawing_size(request: Request, native: tuple[int, int], multiple: int) -> tuple[int, int] | None:
    """The size that a request's picture and mask are drawn at where it doesn't say; None without a picture.

    A picture is drawn as large as it is. With a mask, one that is too large for the model or no multiple of its latents
    is drawn at the nearest size that the model likes, and so are the mask's surroundings alone; all are put back at
    the picture's own size.
    """
    if request.init is None:
        return None
    size = open_picture(request.init).size
    if request.mask is None:
        return size
    if request.mask_padding is None:
        fits = not any(side % multiple for side in size) and not too_large(size, native)
        return size if fits else nearest_size(size, native, multiple)
    left, top, right, bottom = surroundings(open_mask(request.mask, size), request.mask_padding, native)
    return nearest_size((right - left, bottom - top), native, multiple)


def too_large(size: tuple[int, int], native: tuple[int, int]) -> bool:
    """True for a size that a picture with a mask isn't drawn at, but smaller."""
    return math.prod(size) > LARGEST * math.prod(native)


def open_picture(png: bytes) -> Image.Image:
    """A picture that a request carries; UsageError when the bytes are none."""
    try:
        image = Image.open(io.BytesIO(png))
        image.load()
        return image
    except Image.UnidentifiedImageError:
        raise UsageError("a picture of this request is none that can be read; give PNG") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"a picture of this request is damaged: {error}") from error


def open_mask(png: bytes, size: tuple[int, int]) -> Image.Image:
    """A request's mask in black and white; UsageError when it is all of one, or not as large as the picture."""
    mask = two_tone(open_picture(png))
    if mask.size != size:
        raise UsageError(f"the mask is {mask.size[0]}x{mask.size[1]} and the picture {size[0]}x{size[1]}; resize it")
    require_some(mask)
    return mask


def shown(autoencoder: Autoencoder | TinyAutoencoder, mask: Tensor, pixels: Tensor, noise: Tensor) -> Tensor:
    """Mask and masked latents (B, 1 + C, h, w), as Rombach et al. 2022 trained inpainting (section 4.5).

    `mask` (1, 1, H, W) is 1 where to draw, `pixels` (1, 3, H, W) in [-1, 1]; `noise` (B, C, h, w) samples the latents,
    as diffusers does.
    """
    kept = pixels * (mask < 0.5)
    small = F.interpolate(mask, size=noise.shape[-2:])
    return torch.cat([small.to(noise).expand(len(noise), -1, -1, -1), autoencoder.encode(kept, noise)], 1)


def mask_tensor(mask: Image.Image) -> Tensor:
    """A black and white mask as (1, 1, H, W), 1 where to draw."""
    return (_as_tensor(mask) >= 0.5).float()


def _as_tensor(mask: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(mask, np.float32))[None, None] / 255


def _fitted(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, how)
