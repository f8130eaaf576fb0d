"""The tiny autoencoder and the published large one against diffusers, every parameter random."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny

from tests.parity.oracle import LIMITS, difference, load_theirs
from tests.small_families import random, small


@pytest.mark.parametrize("dtype", LIMITS)
def test_tiny(dtype: torch.dtype) -> None:
    json = {**small("taesd", "vae"), "scaling_factor": 0.5}
    ours = random(json, dtype)
    theirs = load_theirs(json, ours)
    assert isinstance(theirs, AutoencoderTiny)
    pictures, latents = torch.rand(2, 3, 32, 48, dtype=dtype) * 2 - 1, 4 * torch.randn(2, 4, 4, 6, dtype=dtype)
    with torch.no_grad():
        assert difference(ours.encode(pictures), theirs.encode(pictures).latents * 0.5) <= LIMITS[dtype]
        assert difference(ours.decode(latents * 0.5), theirs.decode(latents).sample) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_published(family: str, dtype: torch.dtype) -> None:
    json = small(family, "vae")
    ours = random(json, dtype)
    theirs = load_theirs(json, ours)
    scale = json["scaling_factor"]
    pictures, latents = torch.rand(2, 3, 32, 48, dtype=dtype) * 2 - 1, torch.randn(2, 4, 4, 6, dtype=dtype)
    with torch.no_grad():
        assert difference(ours.encode(pictures), theirs.encode(pictures).latent_dist.mean * scale) <= LIMITS[dtype]
        assert difference(ours.decode(latents * scale), theirs.decode(latents).sample) <= LIMITS[dtype]
