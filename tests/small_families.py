"""The published families with widths shrunk and nothing else: the same blocks, depths, heads and extra inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.checkpoints.building import build
from fromnoise.models.extras import Extras
from fromnoise.models.published import FAMILIES
from tests.tiny import randomise

DIVISORS = {
    "addition_time_embed_dim": 32,
    "block_out_channels": 8,
    "conditioning_embedding_out_channels": 4,
    "cross_attention_dim": 32,
    "decoder_block_out_channels": 8,
    "encoder_block_out_channels": 8,
    "hidden_size": 16,
    "intermediate_size": 32,
    "norm_num_groups": 4,
    "projection_class_embeddings_input_dim": 32,
    "projection_dim": 32,
    "sample_size": 8,
    "time_cond_proj_dim": 32,
    "vocab_size": 64,
}


def random(json: Mapping[str, Any], dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """Our module for a part's JSON with every parameter random."""
    return randomise(build(json).to_empty(device="cpu"), seed).to(dtype)


def small(family: str, part: str) -> dict[str, Any]:
    """A part's published JSON with its widths divided."""
    json = FAMILIES[family].parts[part]
    return {name: _divided(value, DIVISORS.get(name, 1)) for name, value in json.items()}


def _divided(value: Any, divisor: int) -> Any:
    if divisor == 1 or value is None:
        return value
    return [each // divisor for each in value] if isinstance(value, list) else value // divisor


def unet_inputs(config: Any, batch: int, side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Extras]:
    """Random latents, timesteps, words, and the extras that the config asks for."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    x, words = draw(batch, config.in_channels, side, side), draw(batch, 7, config.cross_attention_dim)
    time = torch.tensor([3.0, 731.5, 999.0, 0.0])[:batch]
    extras = Extras()
    if config.addition_embed_type:
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        sizes = torch.tensor([[1024.0, 768.0, 0.0, 16.0, 1024.0, 1024.0]] * batch)
        extras = Extras(pooled=draw(batch, pooled), time_ids=sizes)
    if getattr(config, "time_cond_proj_dim", None):
        extras = Extras(guidance=torch.tensor([7.5, 0.0, 13.0, 1.0])[:batch])
    return x, time, words, extras
