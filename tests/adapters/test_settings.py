"""PEFT's settings: patterns are names, and what is no scale is said to be none."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from fromnoise.adapters import read_adapter
from fromnoise.adapters.settings import peft_scale
from fromnoise.runtime.errors import FromnoiseError
from tests.adapters.models import random
from tests.adapters.test_reading import DOWN, UP, written

LAYERS = ("mid.to_q", "down.1.to_q", "to_q", "mid.into_q", "down.1.attn.to_k", "up.1.attn.to_k", "up.down.to_k")
PATTERNS = (
    "to_q", "mid.to_q", r"mid\.to_q", "^to_q", "^mid.to_q$", r"down.*\.to_k", "^down.*to_k", "d.*a.*k", ".*", "q",
    ".*to_k", "^.*attn.*", "down.1.*", "attn.*to_k.*k",
)  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_pefts(pattern: str) -> None:
    for layer in LAYERS:
        expected = 4.0 if re.match(rf"(.*\.)?({pattern})$", layer) else 0.5
        settings = {"r": 2, "lora_alpha": 1, "alpha_pattern": {pattern: 8}}
        assert peft_scale(Path("x"), layer, None, settings) == expected, layer


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha_pattern": {"(([a-z_0-9.])+)+X": 1}},
        {"alpha_pattern": {"(": 1}},
        {"alpha_pattern": ["to_q"]},
        {"alpha_pattern": {"to_q": "8"}},
        {"lora_alpha": "8"},
        {"lora_alpha": math.nan},
        {"lora_alpha": 10**400},
        {"lora_alpha": True},
    ],
)
def test_what_is_no_scale_is_named(settings: dict[str, object], tmp_path: Path) -> None:
    told = {f"unet.{name}": value for name, value in {"r": 4, "lora_alpha": 4, **settings}.items()}
    layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{layer}.lora_B.weight": UP, f"{layer}.lora_A.weight": DOWN}
    with pytest.raises(FromnoiseError, match=r"made\.safetensors: its alpha"):
        read_adapter(written(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(told)}))


def test_a_number_that_is_none_is_named(tmp_path: Path) -> None:
    tensors = {"lora_unet_a.lora_up.weight": random(8, 2), "lora_unet_a.lora_down.weight": DOWN}
    with pytest.raises(FromnoiseError, match="alpha of a is nan"):
        read_adapter(written(tmp_path, {**tensors, "lora_unet_a.alpha": torch.tensor(math.nan)}))
