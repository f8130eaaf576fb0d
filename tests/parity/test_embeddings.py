"""Embedded times and guidance scales, bit for bit: at a thousand radians a rounding of the frequency shows."""

from __future__ import annotations

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline
from diffusers.models.embeddings import get_timestep_embedding

from fromnoise.nn.embedding import guidance_sinusoids, sinusoids


@pytest.mark.parametrize("channels", [128, 256, 320])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0, 1])
def test_times(channels: int, flip: bool, shift: int) -> None:
    time = torch.tensor([0.0, 1.0, 731.5, 999.0])
    assert torch.equal(sinusoids(time, channels, flip, shift), get_timestep_embedding(time, channels, flip, shift))


def test_guidance_scales() -> None:
    scales = torch.tensor([0.0, 1.0, 6.5, 13.0])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scales, 256)
    assert torch.equal(guidance_sinusoids(scales, 256), theirs)
