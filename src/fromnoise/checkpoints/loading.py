"""Weights into a module: strictly, one tensor after another, each mapped and cast as it is read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fromnoise.checkpoints.report import LoadReport, compare
from fromnoise.checkpoints.stored import Tensors
from fromnoise.nn.eight_bit import EXACT
from fromnoise.runtime.errors import FromnoiseError


def fill(
    module: nn.Module,
    tensors: Tensors,
    source: Path,
    family: str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    harmless: tuple[str, ...] = (),
) -> LoadReport:
    """Give a module, best made on the meta device, the weights of `tensors`, and report what went where.

    `dtype` None keeps the file's. A tensor that needs no cast stays mapped from its file. Raises FromnoiseError naming
    `source`, the expected `family` and the first keys when anything is missing, unknown, misshapen or of a wrong type.
    """
    report = compare(source, family, module.state_dict(), tensors, harmless)
    report.require_complete()
    filled = {key: _cast(tensors[key].read(), _kept(key, dtype), device) for key in report.matched}
    module.load_state_dict(filled, assign=True)
    _require_filled(module, source)
    return report


def _kept(key: str, dtype: torch.dtype | None) -> torch.dtype | None:
    """The number format of a tensor in a network of `dtype`: the scales of 8-bit layers stay as they are."""
    return None if key.rpartition(".")[2] in EXACT else dtype


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None, device: torch.device | str) -> torch.Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def _require_filled(module: nn.Module, source: Path) -> None:
    """Buffers that are never saved would stay on the meta device unnoticed."""
    empty = [name for name, each in (*module.named_parameters(), *module.named_buffers()) if each.is_meta]
    if empty:
        raise FromnoiseError(f"{source} left {len(empty)} tensors without values ({', '.join(empty[:3])})")
