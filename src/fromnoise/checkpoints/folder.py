"""One network in its folder: `config.json` and weights, and single files of JSON or tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fromnoise.checkpoints.loading import fill
from fromnoise.checkpoints.report import LoadReport
from fromnoise.checkpoints.tensor_file import open_tensors
from fromnoise.checkpoints.weights import open_weights
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import atomic_write

M = TypeVar("M", bound=nn.Module)

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
"""What diffusers calls the weights of a network of its own."""

HARMLESS = ("position_ids",)
"""Endings of keys that old libraries saved and nobody needs."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; FromnoiseError when the file is absent or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FromnoiseError(f"{path} is missing; is {path.parent} part of a Stable Diffusion folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FromnoiseError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise FromnoiseError(f"{path} should hold a JSON object, not {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` whole, two spaces indented."""
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; FromnoiseError naming the file when it is absent or damaged."""
    return {key: each.read() for key, each in open_tensors(path)[0].items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all."""
    with atomic_write(path, overwrite=True) as temporary:
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, temporary, {"format": "pt"})


def load_module(module: M, path: Path, *, dtype: torch.dtype = torch.float32) -> tuple[M, LoadReport]:
    """Fill a module made on the meta device (or anywhere) from `path`, strictly, as `dtype`."""
    tensors = open_weights(path).tensors
    report = fill(module, tensors, path, type(module).__name__, dtype=dtype, harmless=HARMLESS)
    return module.eval(), report


def save_module(
    folder: Path,
    module: nn.Module,
    class_name: str,
    *,
    file: str = DIFFUSERS_WEIGHTS,
    dtype: torch.dtype = torch.float16,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a part's `config.json` and weights (`weights` instead of the module's own, when given)."""
    config = module.config.to_json()  # type: ignore[union-attr,operator]
    write_json(folder / "config.json", {"_class_name": class_name, **config})
    tensors = module.state_dict() if weights is None else weights
    numbers = {key: value for key, value in tensors.items() if value.is_floating_point()}
    write_tensors(folder / file, {**tensors, **{key: value.to(dtype) for key, value in numbers.items()}})
