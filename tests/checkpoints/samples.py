"""Checkpoints to test with: whole families shrunk to kilobytes, and published sizes that take no room."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fromnoise.checkpoints.building import build
from fromnoise.checkpoints.checkpoint import Checkpoint, Part
from fromnoise.checkpoints.report import compare
from fromnoise.checkpoints.single_file import written_place
from fromnoise.checkpoints.stored import Stored
from fromnoise.checkpoints.tensor_file import _header_bytes
from fromnoise.models.published import FAMILIES, Family

TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "vocab_size": 514}
TEXT |= {"num_hidden_layers": 3, "max_position_embeddings": 16, "projection_dim": 32}
TEXT_2 = {**TEXT, "hidden_size": 48, "intermediate_size": 64, "projection_dim": 40}
NORM = {"norm_num_groups": 4}
UNET = {**NORM, "block_out_channels": [8, 12, 16, 16], "attention_head_dim": 2, "cross_attention_dim": 32}
SDXL = {**NORM, "block_out_channels": [8, 12, 16], "attention_head_dim": [1, 2, 2], "cross_attention_dim": 80}
SDXL |= {"transformer_layers_per_block": [1, 1, 2], "addition_time_embed_dim": 4}
SDXL |= {"projection_class_embeddings_input_dim": 40 + 6 * 4}

SMALL: Mapping[str, dict[str, Any]] = {
    "UNet2DConditionModel": UNET,
    "ControlNetModel": {**UNET, "conditioning_embedding_out_channels": [4, 8, 8, 12]},
    "AutoencoderKL": {**NORM, "block_out_channels": [4, 8, 8, 12]},
    "AutoencoderTiny": {"encoder_block_out_channels": [8] * 4, "decoder_block_out_channels": [8] * 4},
    "CLIPTextModel": TEXT,
    "CLIPTextModelWithProjection": TEXT_2,
}
"""What makes a published config small; levels, layers and everything that names a key stay as they are."""


def shrunk(config: Mapping[str, Any]) -> dict[str, Any]:
    """A published config with all its blocks, each a few channels wide."""
    kind = config.get("_class_name") or config["architectures"][0]
    small = {**SMALL[kind]}
    if config.get("addition_embed_type"):
        small |= SDXL
    elif kind in ("UNet2DConditionModel", "ControlNetModel") and isinstance(config["attention_head_dim"], list):
        small["attention_head_dim"] = [1, 2, 2, 2]
    if config.get("time_cond_proj_dim"):
        small["time_cond_proj_dim"] = 8
    return {**config, **small}


def weights(config: Mapping[str, Any], dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights for a config, every one of them different."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: (torch.randn(each.shape, generator=generator) * 0.1).to(dtype) for key, each in expected(config).items()
    }


def small(family: str, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """A whole checkpoint of a family with random weights, in memory."""
    published = FAMILIES[family]
    parts = {}
    for index, (name, config) in enumerate(published.parts.items()):
        config = shrunk(config)
        stored = {key: Stored.of(each) for key, each in weights(config, dtype, index).items()}
        parts[name] = Part(name, config, Path(family), family, stored)
    tokenizers = {name.replace("text_encoder", "tokenizer"): None for name in parts if name.startswith("text")}
    return Checkpoint(
        path=Path(family),
        family=family,
        parts=parts,
        scheduler=dict(published.scheduler),
        tokenizers=tokenizers,
        pipeline_class=published.pipeline_class,
    )


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """True when all parts have the same keys, dtypes, configs and bits."""
    return one.parts.keys() == other.parts.keys() and all(
        part.config == other.parts[name].config and equal(part.tensors, other.parts[name].tensors)
        for name, part in one.parts.items()
    )


def equal(one: Mapping[str, Stored], other: Mapping[str, Stored]) -> bool:
    """True when two sets of tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(bits(one[key]) == bits(other[key]) for key in one)


def bits(stored: Stored) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    """A tensor's dtype, shape and bytes."""
    tensor = stored.read().contiguous()
    return tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def fits(part: Part) -> bool:
    """True when a part has just the keys and shapes that its module wants."""
    return compare(part.source, part.name, expected(part.config), part.tensors).complete


def expected(config: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    """The keys of a config's module, its tensors on the meta device."""
    return _expected(json.dumps(config))


@cache
def _expected(config: str) -> Mapping[str, torch.Tensor]:
    return build(json.loads(config)).state_dict()


def published_shapes(family: Family) -> dict[str, Stored]:
    """The keys of a family's single file at the published sizes, as float16."""
    parts = {
        name: Part(name, dict(config), Path(), family.name, _shapes(expected(config)))
        for name, config in family.parts.items()
    }
    checkpoint = Checkpoint(Path(), family.name, parts)
    tensors: dict[str, Stored] = {}
    for part in parts.values():
        place = written_place(part, checkpoint)
        mapped = place.keys.to_single(part.tensors, part.config)
        assert not mapped.left_over
        tensors |= {place.prefix + key: each for key, each in mapped.tensors.items()}
    return tensors


def shape_only(*shape: int, dtype: torch.dtype = torch.float16) -> Stored:
    """A tensor that is never read."""

    def read() -> torch.Tensor:
        raise AssertionError("this tensor should not be read")

    return Stored(shape, dtype, read)


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, Stored]:
    return {key: shape_only(*each.shape) for key, each in state.items()}


def sparse_file(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file of zeros that says to hold these tensors and takes no room on the disk."""
    path.write_bytes(_header_bytes(tensors, metadata or {}))
    os.truncate(path, path.stat().st_size + sum(each.bytes for each in tensors.values()))
    return path


def renamed(tensors: Mapping[str, Stored], to: Callable[[str], str]) -> dict[str, Stored]:
    """The same tensors under other keys."""
    return {to(key): each for key, each in tensors.items()}
