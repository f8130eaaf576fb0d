"""The factors of a LoRA while they learn: which layers get some, how they start, how they act and are written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.adapters import Adapted, Adapter, Lora, Matched, Use, write_lora
from fromnoise.adapters.factors import Layer, Side
from fromnoise.adapters.families import family_of
from fromnoise.adapters.keys import layers
from fromnoise.pipeline import Pipeline
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.seeds import generator
from fromnoise.training.tuning.task import Learns

OUTER = ("conv_in", "conv_out", "time_embedding", "add_embedding", "time_proj")
"""Where the U-Net's names begin that get no factors: what reads or writes latents, and what is about time."""

ATTENTION = re.compile(r"\.attn\d\.to_(q|k|v|out\.0)$")
"""How the U-Net's attention projections end: what most trainers give factors to, and nothing else."""

NAME = "learning"


@dataclass(frozen=True)
class Dropping(Lora):
    """A LoRA whose side path leaves out a share of its inputs while it learns (Hu et al. 2021, as in PEFT)."""

    dropout: float = 0.0

    def tensors(self) -> dict[str, Tensor | None]:
        """The factors by name."""
        return {name: each for name, each in super().tensors().items() if name != "dropout"}

    def side(self, layer: Layer) -> Side:
        """Nothing is left out where gradients are off, which is where losses are compared and pictures drawn."""
        whole = super().side(layer)
        return lambda x: whole(F.dropout(x, self.dropout, training=torch.is_grad_enabled()))


class Factors(nn.Module):
    """The factors that learn, by part and layer, and nothing else."""

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        rank: int,
        alpha: float,
        dropout: float,
        seed: int,
        *,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.named = nn.ParameterDict()
        self.loras: dict[str, dict[str, Dropping]] = {}
        for part, module in parts.items():
            for name, layer in targets(part, module, attention=attention).items():
                up, down = _first(layer, rank, f"{part}.{name}", seed)
                key = f"{part}/{name}".replace(".", "/")  # a module's names may hold no dots
                self.named[f"{key}/up"], self.named[f"{key}/down"] = up, down
                made = Dropping(up, down, scale=alpha / len(down), dropout=dropout)
                self.loras.setdefault(part, {})[name] = made

    def adapter(self) -> Adapter:
        """The factors as an adapter that shares their tensors."""
        return Adapter(NAME, "lora", self.loras)

    def take(self, found: Matched, share: float = 1.0) -> None:
        """Start from a LoRA that was learnt before, `share` times as strong; what it lacks starts fresh.

        Raises UsageError where it changes more than learns here, or is no plain LoRA.
        """
        if found.unplaced or found.absent:
            raise UsageError(f"{found.adapter.where} changes what the model lacks, which would be lost: {found}")
        for part, places in found.places.items():
            for name, place in places.items():
                mine = self.loras.get(part, {}).get(name)
                if mine is None:
                    said = f"{found.adapter.where} changes {part} {name}, which doesn't learn here"
                    raise UsageError(f"{said}; {_way(part, name)}")
                if not isinstance(place.factors, Lora) or place.factors.mid is not None:
                    raise UsageError(f"{found.adapter.where} is no plain LoRA: only such a one can learn on")
                _copy(mine, place.factors, share, found.adapter.where)


def _way(part: str, name: str) -> str:
    """What would let a layer learn."""
    if part != "unet":
        return "give --text-encoder (text_encoder = true in a recipe)"
    return "only the U-Net's blocks do" if name.startswith(OUTER) else "leave out --attention"


@torch.no_grad()
def _copy(mine: Dropping, its: Lora, share: float, where: str) -> None:
    rank = its.rank
    if rank > mine.rank:
        raise UsageError(f"{where} has rank {rank} and {mine.rank} is learnt; give --rank {rank}")
    mine.up[:, :rank] = its.up.flatten(1).float() * (share * its.scale / mine.scale)
    mine.down[:rank] = its.down.reshape(rank, *mine.down.shape[1:]).float()


def targets(part: str, module: nn.Module, *, attention: bool = False) -> dict[str, Layer]:
    """The layers that get factors: a U-Net's blocks' linear and convolutional ones, a text encoder's linear ones.

    With `attention` only the projections of the U-Net's attention.
    """
    found = layers(module)
    if part == "unet" and attention:
        return {name: each for name, each in found.items() if ATTENTION.search(name)}
    if part == "unet":
        return {name: each for name, each in found.items() if not name.startswith(OUTER)}
    return {name: each for name, each in found.items() if ".layers." in name}


def learning_factors(pipeline: Pipeline, factors: Factors) -> Learns:
    """The factors acting beside the pipeline's layers."""
    modules = modules_of(pipeline)
    adapted = Adapted(modules, [Use(factors.adapter())], learning=True)
    return Learns(factors, adapted.prompts(pipeline.prompts), adapted, text=len(factors.loras) > 1)


def modules_of(pipeline: Pipeline) -> dict[str, nn.Module]:
    """The parts that an adapter may change, by diffusers' names."""
    texts = zip(("text_encoder", "text_encoder_2"), pipeline.prompts.encoders, strict=False)
    return {"unet": pipeline.unet, **{name: each.clip_text for name, each in texts}}


def write_factors(path: Path, factors: Factors, pipeline: Pipeline, layout: str) -> None:
    """The LoRA as it is now, in kohya's or PEFT's layout."""
    write_lora(path, factors.loras, layout, family=family_of(modules_of(pipeline)))


def _first(layer: Layer, rank: int, name: str, seed: int) -> tuple[nn.Parameter, nn.Parameter]:
    """`up` zeros, so that nothing changes yet; `down` uniform as in torch's own layers (Hu et al. 2021, 4.1)."""
    outputs, inputs = layer.weight.shape[0], layer.weight[0].numel()
    rank = min(rank, outputs, inputs)
    down = torch.rand(rank, *layer.weight.shape[1:], generator=generator("factors", seed, name)) * 2 - 1
    up, down = torch.zeros(outputs, rank).to(layer.weight), (down / math.sqrt(inputs)).to(layer.weight)
    return nn.Parameter(up), nn.Parameter(down)
