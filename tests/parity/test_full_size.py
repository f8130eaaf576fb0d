"""The published configurations at full size, one module at a time: gigabytes of random weights, tiny inputs.

The reference takes over our weights without a copy, so that even SDXL's U-Net (10 GB in float32) is held once.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fromnoise.models.published import FAMILIES
from tests.parity.oracle import difference, load_theirs, their_arguments
from tests.small_families import random, unet_inputs

LIMIT = 1e-4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield
    gc.collect()


def pair(family: str, part: str) -> tuple[nn.Module, nn.Module]:
    json = FAMILIES[family].parts[part]
    ours = random(json, torch.float32)
    return ours, load_theirs(json, ours)


def check(name: str, mine: Tensor, reference: Tensor) -> None:
    figure = difference(mine, reference)
    print(f"{name}: {figure:.1e} of {float(reference.abs().max()):.3g}")
    assert figure <= LIMIT


@pytest.mark.parametrize("family", ["sd1", "sd1-inpaint", "sd2", "lcm", "sdxl"])
def test_unet(family: str) -> None:
    ours, theirs = pair(family, "unet")
    x, time, words, extras = unet_inputs(ours.config, 1, 16, torch.float32)
    arguments = their_arguments(extras, torch.float32, ours.config.time_cond_proj_dim)
    check(f"{family} unet", ours(x, time, words, extras), theirs(x, time, words, **arguments).sample)


@pytest.mark.parametrize(
    ("family", "part"), [("sd1", "text_encoder"), ("sd2", "text_encoder"), ("sdxl", "text_encoder_2")]
)
def test_text_encoder(family: str, part: str) -> None:
    ours, theirs = pair(family, part)
    tokens = torch.randint(0, 49405, (1, 77), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, 20:] = 49406, 49407
    reference = theirs(tokens, output_hidden_states=True)
    states = ours.states(tokens)
    check(f"{family} {part} penultimate", states[-2], reference.hidden_states[-2])
    pooled = reference.text_embeds if ours.config.projects else reference.pooler_output
    check(f"{family} {part} pooled", ours.pooled(tokens, states[-1]), pooled)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_autoencoder(family: str) -> None:
    ours, theirs = pair(family, "vae")
    scale = ours.config.scaling_factor
    pictures, latents = torch.rand(1, 3, 64, 64) * 2 - 1, torch.randn(1, 4, 8, 8)
    check(f"{family} encode", ours.encode(pictures), theirs.encode(pictures).latent_dist.mean * scale)
    check(f"{family} decode", ours.decode(latents * scale), theirs.decode(latents).sample)


def test_tiny_autoencoder() -> None:
    ours, theirs = pair("taesd", "vae")
    pictures, latents = torch.rand(1, 3, 64, 64) * 2 - 1, torch.randn(1, 4, 8, 8)
    check("taesd encode", ours.encode(pictures), theirs.encode(pictures).latents)
    check("taesd decode", ours.decode(latents), theirs.decode(latents).sample)


@pytest.mark.parametrize("family", ["controlnet-sd1", "controlnet-sdxl"])
def test_controlnet(family: str) -> None:
    ours, theirs = pair(family, "controlnet")
    x, time, words, extras = unet_inputs(ours.config, 1, 16, torch.float32)
    hint = torch.rand(1, 3, 128, 128)
    mine = ours(x, time, words, hint, extras)
    down, mid = theirs(x, time, words, hint, **their_arguments(extras), return_dict=False)
    check(f"{family} mid", mine.mid, mid)
    for index, (one, two) in enumerate(zip(mine.down, down, strict=True)):
        check(f"{family} down {index}", one, two)
