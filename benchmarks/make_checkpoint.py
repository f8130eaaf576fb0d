"""Make a whole checkpoint with random weights at a family's published configuration, to measure and to try things on.

usage: python benchmarks/make_checkpoint.py FAMILY DESTINATION [--dtype float16] [--seed 0]

Families: those of fromnoise.models.published.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.checkpoints.building import build
from fromnoise.checkpoints.checkpoint import class_of
from fromnoise.checkpoints.convert import convert_checkpoint
from fromnoise.checkpoints.folder import write_json, write_tensors
from fromnoise.checkpoints.tokenizers import clip_texts, write_texts
from fromnoise.models.published import FAMILIES, Family, Json

WEIGHTS = {"transformers": "model.safetensors", "diffusers": "diffusion_pytorch_model.safetensors"}

Fill = Callable[[nn.Module, int], dict[str, Tensor]]
"""A module on the meta device, and a seed, to its weights."""


def random_tensors(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights of the sizes that a fresh network has, so that activations stay finite: 1 for norms, 0 for biases."""
    generator = torch.Generator().manual_seed(seed)
    return {key: _random(key, meta, generator) for key, meta in module.state_dict().items()}


def _random(key: str, meta: Tensor, generator: torch.Generator) -> Tensor:
    if meta.ndim < 2:
        return torch.ones(meta.shape) if key.endswith("weight") else torch.zeros(meta.shape)
    fan_in = meta[0].numel()
    spread = 0.02 if "embedding.weight" in key else fan_in**-0.5
    return torch.randn(meta.shape, generator=generator) * spread


def write_part(folder: Path, config: Json, dtype: torch.dtype, seed: int, fill: Fill = random_tensors) -> None:
    """One part's `config.json` and weights."""
    made = build(config)
    write_json(folder / "config.json", config)
    tensors = {key: each.to(dtype) for key, each in fill(made, seed).items()}
    write_tensors(folder / WEIGHTS[_library(config)], tensors)


def index(family: Family) -> dict[str, Any]:
    """The `model_index.json` of a family."""
    parts: dict[str, Any] = {name: [_library(config), class_of(config)] for name, config in family.parts.items()}
    parts |= {name: ["transformers", "CLIPTokenizer"] for name in family.tokenizers}
    parts["scheduler"] = ["diffusers", family.scheduler["_class_name"]]
    if not family.name.startswith("sdxl"):
        parts |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    else:
        parts["force_zeros_for_empty_prompt"] = True
    return {"_class_name": family.pipeline_class, "_diffusers_version": "0.35.0", **parts}


def _library(config: Json) -> str:
    return "diffusers" if "_class_name" in config else "transformers"


def write_folder(
    folder: Path, family: Family, dtype: torch.dtype = torch.float16, seed: int = 0, fill: Fill = random_tensors
) -> None:
    """The whole diffusers folder; a lone part's is the part itself."""
    if family.pipeline_class is None:
        ((_, config),) = family.parts.items()
        write_part(folder, config, dtype, seed, fill)
        return
    for offset, (name, config) in enumerate(family.parts.items()):
        write_part(folder / name, config, dtype, seed + offset, fill)
    for name, fields in family.tokenizers.items():
        write_texts(folder / name, clip_texts(fields))
    write_json(folder / "scheduler" / "scheduler_config.json", family.scheduler)
    write_json(folder / "model_index.json", index(family))


def main() -> None:
    """Read the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    family, dtype = FAMILIES[asked.family], getattr(torch, asked.dtype)
    if asked.destination.suffix != ".safetensors":
        write_folder(asked.destination, family, dtype, asked.seed)
        return
    with tempfile.TemporaryDirectory(dir=asked.destination.parent) as temporary:
        write_folder(Path(temporary) / family.name, family, dtype, asked.seed)
        convert_checkpoint(Path(temporary) / family.name, asked.destination)


if __name__ == "__main__":
    main()
