"""The diffusers folder layout: one folder a part, each with `config.json` and a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fromnoise.checkpoints.report import LoadReport, compare
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import atomic_write

M = TypeVar("M", bound=nn.Module)

HARMLESS = ("position_ids",)
"""Endings of keys that old libraries saved and nobody needs."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; FromnoiseError when the file is absent or damaged."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise FromnoiseError(f"{path} is missing; is {path.parent} part of a Stable Diffusion folder?") from None
    except (OSError, ValueError) as error:
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
    try:
        return load_file(path)
    except FileNotFoundError:
        raise FromnoiseError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise FromnoiseError(f"{path} is damaged or no safetensors file: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all."""
    with atomic_write(path, overwrite=True) as temporary:
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, temporary, {"format": "pt"})


def load_module(module: M, path: Path, *, dtype: torch.dtype = torch.float32) -> tuple[M, LoadReport]:
    """Fill a module made on the meta device (or anywhere) from `path`, strictly, as `dtype`."""
    found = read_tensors(path)
    report = compare(path, type(module).__name__, module.state_dict(), found, HARMLESS)
    report.require_complete()
    module.load_state_dict({key: found[key].to(dtype) for key in report.matched}, assign=True)
    return module.eval(), report


def save_module(
    folder: Path,
    module: nn.Module,
    class_name: str,
    *,
    file: str = "diffusion_pytorch_model.safetensors",
    dtype: torch.dtype = torch.float16,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a part's `config.json` and weights (`weights` instead of the module's own, when given)."""
    config = module.config.to_json()  # type: ignore[union-attr,operator]
    write_json(folder / "config.json", {"_class_name": class_name, **config})
    tensors = module.state_dict() if weights is None else weights
    write_tensors(folder / file, {key: value.to(dtype) for key, value in tensors.items()})
