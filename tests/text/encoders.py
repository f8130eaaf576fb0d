"""Small prompt encoders of every generation, with CLIP's own vocabulary and random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from fromnoise.text import PromptEncoder, TextEncoder, Tokenizer
from fromnoise.text.conditioning import READINGS
from tests.small_families import random, small

ENCODERS = {
    "sd1": [("text_encoder", "<|endoftext|>")],
    "sd2": [("text_encoder", "!")],
    "sdxl": [("text_encoder", "<|endoftext|>"), ("text_encoder_2", "!")],
}
"""The text encoders of each generation, with what their tokenizers pad with."""


def config(generation: str, part: str) -> dict[str, Any]:
    """A published config made narrow and shallow."""
    return {**small(generation, part), "num_hidden_layers": 4, "vocab_size": 49408}


@cache
def prompt_encoder(generation: str) -> PromptEncoder:
    """Made once; its weights must not be changed."""
    encoders = [
        TextEncoder(Tokenizer.clip(pad=pad), random(config(generation, part), torch.float32, seed).eval())  # type: ignore[arg-type]
        for seed, (part, pad) in enumerate(ENCODERS[generation])
    ]
    return PromptEncoder(encoders, READINGS[generation])
