"""Modules as engines want them: tensors in, one tensor out. And the plainest engine, torch as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.engines.cache import Store
from fromnoise.engines.contract import Inputs, Prepared
from fromnoise.engines.names import EAGER
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.extras import Extras
from fromnoise.models.tiny_autoencoder import TinyAutoencoder
from fromnoise.models.unet import UNet

GIVEN = ("pooled", "time_ids", "guidance")
"""The extras that are plain tensors, in the order in which they follow the words."""


class PlainUNet(nn.Module):
    """A U-Net whose inputs are float32 latents, times and words, then the extras named in `given`.

    It computes in its own number format and answers in float32.
    """

    def __init__(self, unet: UNet, given: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.unet, self.given = unet, given

    def forward(self, x: Tensor, time: Tensor, words: Tensor, *more: Tensor) -> Tensor:
        """(B, in_channels, h, w), (B,), (B, M, C) and more to (B, out_channels, h, w)."""
        dtype = self.unet.conv_in.weight.dtype
        extras: dict[str, Any] = dict(zip(self.given, more, strict=True))
        if "pooled" in extras:
            extras["pooled"] = extras["pooled"].to(dtype)
        return self.unet(x.to(dtype), time, words.to(dtype), Extras(**extras)).float()

    def facts(self) -> Mapping[str, Any]:
        """What it is beside its weights."""
        return {"module": "unet", "config": asdict(self.unet.config), "given": list(self.given)}


class PlainDecoder(nn.Module):
    """An autoencoder's decoder as a module: float32 latents in, float32 pictures out."""

    def __init__(self, autoencoder: Autoencoder | TinyAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self._dtype = next(autoencoder.parameters()).dtype

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 3, H, W)."""
        return self.autoencoder.decode(latents.to(self._dtype)).float()

    def facts(self) -> Mapping[str, Any]:
        """What it is beside its weights."""
        return {"module": "decoder", "config": asdict(self.autoencoder.config)}


class Plain:
    """torch as it stands: the reference."""

    name = EAGER

    def available(self) -> str | None:
        """Always."""
        return None

    def cached(self, module: nn.Module, inputs: Inputs, store: Store) -> bool:
        """There is nothing to prepare."""
        return True

    @torch.inference_mode()
    def prepare(self, module: nn.Module, inputs: Inputs, store: Store) -> Prepared:
        """The module itself."""
        return Prepared(self.name, module, difference=0.0)
