"""Weights into a module: strictly, one tensor after another, each mapped and cast as it is read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import torch
from torch import nn

from fromnoise.checkpoints.report import LoadReport, compare
from fromnoise.checkpoints.stored import Tensors
from fromnoise.nn.eight_bit import EXACT
from fromnoise.runtime.errors import FromnoiseError

Ready = Callable[[nn.Module], object]
"""Told of a layer that has its weights."""

CHUNK = 1 << 20
"""Values that stay in a core's cache on their way through float32."""


def leave(layer: nn.Module) -> None:
    """Do nothing about it."""


def fill(
    module: nn.Module,
    tensors: Tensors,
    source: Path,
    family: str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    harmless: tuple[str, ...] = (),
    ready: Ready = leave,
) -> LoadReport:
    """Give a module, best made on the meta device, the weights of `tensors`, and report what went where.

    `dtype` None keeps the file's. A tensor that needs no cast stays mapped from its file. `ready` is told of each layer
    before the next one is read. Raises FromnoiseError naming `source`, the expected `family` and the first keys when
    anything is missing, unknown, misshapen or of a wrong type.
    """
    report = compare(source, family, module.state_dict(), tensors, harmless)
    report.require_complete()
    for name, keys in groupby(sorted(report.matched, key=_layer), _layer):
        layer = module.get_submodule(name)
        weights = {_own(key): _cast(tensors[key].read(), _kept(key, dtype), device) for key in keys}
        layer.load_state_dict(weights, strict=False, assign=True)
        weights.clear()
        ready(layer)
    _require_filled(module, source)
    return report


def _layer(key: str) -> str:
    """The layer that a weight belongs to, "" for the module itself."""
    return key.rpartition(".")[0]


def _own(key: str) -> str:
    """What the layer itself calls it."""
    return key.rpartition(".")[2]


def _kept(key: str, dtype: torch.dtype | None) -> torch.dtype | None:
    """The number format of a tensor in a network of `dtype`: the scales of 8-bit layers stay as they are."""
    return None if _own(key) in EXACT else dtype


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None, device: torch.device | str) -> torch.Tensor:
    if (tensor.dtype, dtype, torch.device(device).type) == (torch.float16, torch.bfloat16, "cpu"):
        return _half_to_bfloat16(tensor)
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def _half_to_bfloat16(tensor: torch.Tensor) -> torch.Tensor:
    """The cast of torch, bit for bit; through float32, for which CPUs have instructions, it takes half the time."""
    made = torch.empty(tensor.shape, dtype=torch.bfloat16)
    on_the_way = torch.empty(min(CHUNK, tensor.numel()))
    for given, taken in zip(tensor.reshape(-1).split(CHUNK), made.view(-1).split(CHUNK), strict=True):
        taken.copy_(on_the_way[: len(given)].copy_(given))
    return made


def _require_filled(module: nn.Module, source: Path) -> None:
    """Buffers that are never saved would stay on the meta device unnoticed."""
    empty = [name for name, each in (*module.named_parameters(), *module.named_buffers()) if each.is_meta]
    if empty:
        raise FromnoiseError(f"{source} left {len(empty)} tensors without values ({', '.join(empty[:3])})")
