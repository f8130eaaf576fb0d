"""ControlNets, several of them, and perturbed attention against diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from torch import Tensor, nn

from fromnoise.models.extras import Control, Extras
from tests.parity.oracle import LIMITS, difference, load_theirs, their_arguments
from tests.small_families import random, small, unet_inputs

FAMILIES = {"controlnet-sd1": "sd1", "controlnet-sd2": "sd2", "controlnet-sdxl": "sdxl"}


def pair(family: str, part: str, dtype: torch.dtype, seed: int, **fields: Any) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs with the same random weights."""
    json = {**small(family, part), **fields}
    ours = random(json, dtype, seed)
    return ours, load_theirs(json, ours)


def assert_equal_controls(mine: Control, down: list[Tensor], mid: Tensor, limit: float) -> None:
    for one, two in zip((*mine.down, mine.mid), (*down, mid), strict=True):
        assert difference(one, two) <= limit


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_controlnets_summed_and_the_unet_they_steer(family: str, dtype: torch.dtype) -> None:
    pairs = [pair(family, "controlnet", dtype, seed) for seed in (0, 1)]
    unet, their_unet = pair(FAMILIES[family], "unet", dtype, 2)
    x, time, words, extras = unet_inputs(unet.config, 2, 8, dtype)
    hints = [torch.rand(2, 3, 64, 64, dtype=dtype) for _ in pairs]
    arguments = their_arguments(extras, dtype)
    with torch.no_grad():
        made = [ours(x, time, words, hint, extras) for (ours, _), hint in zip(pairs, hints, strict=True)]
        control = made[0].scaled(0.7) + made[1].scaled(-0.4)
        several = MultiControlNetModel([theirs for _, theirs in pairs])
        down, mid = several(x, time, words, hints, [0.7, -0.4], **arguments, return_dict=False)
        assert_equal_controls(control, down, mid, LIMITS[dtype])
        steered = Extras(extras.pooled, extras.time_ids, control=control)
        mine = unet(x, time, words, steered)
        reference = their_unet(x, time, words, **their_arguments(steered, dtype)).sample
        free = unet(x, time, words, extras)
    assert difference(mine, reference) <= LIMITS[dtype]
    assert difference(mine, free) > 0.1, "the control changed nothing"


def test_global_pooling() -> None:
    ours, theirs = pair("controlnet-sd1", "controlnet", torch.float64, 0, global_pool_conditions=True)
    x, time, words, _ = unet_inputs(ours.config, 2, 8, torch.float64)
    hint = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        mine = ours(x, time, words, hint)
        down, mid = theirs(x, time, words, hint, return_dict=False)
    assert_equal_controls(mine, down, mid, 1e-6)
    assert mine.mid.shape[-2:] == (1, 1)


def test_one_hint_steers_a_whole_batch() -> None:
    ours, _ = pair("controlnet-sd1", "controlnet", torch.float32, 0)
    x, time, words, _ = unet_inputs(ours.config, 2, 8, torch.float32)
    hint = torch.rand(1, 3, 64, 64)
    one, two = ours(x, time, words, hint), ours(x, time, words, hint.expand(2, -1, -1, -1))
    assert difference(one.mid, two.mid) <= 1e-5


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_perturbed_attention(family: str) -> None:
    ours, theirs = pair(family, "unet", torch.float64, 0)
    x, time, words, extras = unet_inputs(ours.config, 4, 16, torch.float64)
    perturbed = torch.tensor([False, False, True, True])
    with torch.no_grad():
        plain = ours(x, time, words, extras)
        mine = ours(x, time, words, Extras(extras.pooled, extras.time_ids, perturbed=perturbed))
        for name, module in theirs.named_modules():
            if name.startswith("mid_block") and name.endswith("attn1"):
                module.set_processor(PAGIdentitySelfAttnProcessor2_0())
        reference = theirs(x, time, words, **their_arguments(extras, torch.float64)).sample
    assert difference(mine, reference) <= 1e-6
    assert torch.equal(mine[:2], plain[:2])
    assert all(difference(one, two) > 1e-3 for one, two in zip(mine[2:], plain[2:], strict=True))
