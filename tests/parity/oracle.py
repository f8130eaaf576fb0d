"""How our models are compared with diffusers' and transformers'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers
from diffusers import LatentConsistencyModelPipeline
from torch import Tensor, nn

from fromnoise.checkpoints.checkpoint import class_of
from fromnoise.models.extras import Extras

LIMITS = {torch.float64: 1e-6, torch.float32: 1e-5}
"""The largest difference allowed at small configurations, relative to the largest magnitude."""


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest magnitude of theirs."""
    assert ours.shape == theirs.shape
    return float(((ours - theirs).abs().max() / theirs.abs().max()).detach())


def build_theirs(json: Mapping[str, Any]) -> nn.Module:
    """The reference's module for a published JSON."""
    name = class_of(json)
    values = {key: value for key, value in json.items() if not key.startswith("_")}
    if name.startswith("CLIP"):
        return getattr(transformers, name)(transformers.CLIPTextConfig(**values))
    return getattr(diffusers, name)(**values)


def their_keys(name: str, keys: list[str]) -> list[str]:
    """Our keys, which are the published ones, as the installed library names them in memory.

    transformers 5 drops the leading `text_model.` of CLIPTextModel when it reads a file.
    """
    return [key.removeprefix("text_model.") if name == "CLIPTextModel" else key for key in keys]


def load_theirs(json: Mapping[str, Any], ours: nn.Module) -> nn.Module:
    """The reference's module with our weights, every key matched."""
    state = ours.state_dict()
    named = dict(zip(their_keys(class_of(json), list(state)), state.values(), strict=True))
    if class_of(json).startswith("CLIP"):
        theirs = build_theirs(json).to(next(ours.parameters()).dtype)
        theirs.load_state_dict(named)
    else:
        with torch.device("meta"):
            theirs = build_theirs(json)
        theirs.load_state_dict(named, assign=True)
    return theirs.eval()


def their_arguments(
    extras: Extras, dtype: torch.dtype = torch.float32, guidance_channels: int | None = None
) -> dict[str, Any]:
    """Our extras as diffusers' keyword arguments."""
    arguments: dict[str, Any] = {}
    if extras.pooled is not None:
        arguments["added_cond_kwargs"] = {"text_embeds": extras.pooled, "time_ids": extras.time_ids}
    if extras.guidance is not None:
        embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
        arguments["timestep_cond"] = embed(None, extras.guidance, guidance_channels).to(dtype)
    if extras.control is not None:
        arguments["down_block_additional_residuals"] = extras.control.down
        arguments["mid_block_additional_residual"] = extras.control.mid
    return arguments
