"""A LoRA out of the difference of two checkpoints: the best one of a rank, and what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from fromnoise.adapters.factors import Lora
from fromnoise.adapters.merging import require_same_parts
from fromnoise.checkpoints import Checkpoint, Part
from fromnoise.runtime.errors import FromnoiseError, UsageError

PARTS = ("unet", "text_encoder", "text_encoder_2")
"""The parts that a LoRA can change."""

TABLES = ("token_embedding.weight", "position_embedding.weight")
"""Endings of matrices that are tables, not layers."""

Told = Callable[[int, int], None]
"""Told how many layers are done, and of how many."""


@dataclass(frozen=True)
class Left:
    """Squares of what differed, and of what a LoRA leaves of it, summed over a part."""

    differed: float = 0.0
    remains: float = 0.0

    def __add__(self, other: Left) -> Left:
        return Left(self.differed + other.differed, self.remains + other.remains)

    @property
    def error(self) -> float:
        """The relative error: |difference - LoRA| / |difference|, Frobenius norms; 0 when nothing differed."""
        return (self.remains / self.differed) ** 0.5 if self.differed else 0.0


@dataclass(frozen=True)
class Extracted:
    """A LoRA by part and layer, what it leaves by part, and how much of that is in layers it can't change."""

    loras: Mapping[str, Mapping[str, Lora]]
    left: Mapping[str, Left]
    beyond: Mapping[str, Left]

    @property
    def error(self) -> float:
        """The relative error over all parts."""
        return sum(self.left.values(), Left()).error

    @property
    def layers(self) -> int:
        """How many layers the LoRA changes."""
        return sum(map(len, self.loras.values()))


@dataclass(frozen=True)
class _PartLeft:
    """What became of one part."""

    loras: Mapping[str, Lora]
    left: Left
    beyond: Left


def extract(
    base: Checkpoint,
    tuned: Checkpoint,
    rank: int,
    *,
    dtype: torch.dtype | None = None,
    told: Told = lambda done, total: None,
) -> Extracted:
    """The LoRA of at most `rank` nearest to `tuned` - `base`, layer by layer (Eckart and Young 1936), for scale 1.

    Layers are linear ones and convolutions; those that did not change get none. Biases, norms and tables differ too in
    a tuned model: a LoRA can't carry them, so they count in full among what is left. Factors are in `dtype`, None
    for that of the tuned weights (float16 where it has 8 bits), and the errors are those after this rounding. Raises
    FromnoiseError when no layer differs or the checkpoints are not alike, UsageError for a rank below 1.
    """
    if rank < 1:
        raise UsageError(f"the rank must be at least 1, not {rank}")
    require_same_parts(base, tuned)
    names = [name for name in PARTS if name in base.parts]
    total = sum(len(base.parts[name].tensors) for name in names)
    tick = _ticks(told, total)
    made = {name: _extract_part(base.parts[name], tuned.parts[name], rank, dtype, tick) for name in names}
    if not any(each.loras for each in made.values()):
        raise FromnoiseError(f"{tuned.path} has the same layers as {base.path}; there is nothing to extract")
    return Extracted(
        {name: each.loras for name, each in made.items() if each.loras},
        {name: each.left for name, each in made.items()},
        {name: each.beyond for name, each in made.items()},
    )


def _ticks(told: Told, total: int) -> Callable[[], None]:
    """Called once for each tensor that is done."""
    counter = count(1)
    return lambda: told(next(counter), total)


def _extract_part(base: Part, tuned: Part, rank: int, dtype: torch.dtype | None, tick: Callable[[], None]) -> _PartLeft:
    loras: dict[str, Lora] = {}
    left, beyond = Left(), Left()
    for key, stored in tuned.tensors.items():
        if stored.dtype.is_floating_point:
            difference = stored.read().float() - base.tensors[key].read().float()
            differed = _square(difference)
            if not math.isfinite(differed):
                raise FromnoiseError(f"{key} of {base.source} or {tuned.source} holds numbers that are not finite")
            if differed and _is_layer(key, difference):
                lora = nearest(difference, rank, dtype or _of_factors(stored.dtype))
                loras[key.removesuffix(".weight")] = lora
                left += Left(
                    differed, _square(difference.flatten(1) - lora.to(difference.device, torch.float32).delta())
                )
            else:
                left, beyond = left + Left(differed, differed), beyond + Left(differed, differed)
        tick()
    return _PartLeft(loras, left, beyond)


def nearest(difference: Tensor, rank: int, dtype: torch.dtype = torch.float32) -> Lora:
    """The LoRA of at most `rank` nearest to a difference (O, I) or (O, I, k, k), both factors of like size.

    The singular vectors come from the eigenvectors of the smaller Gram matrix in float64: singular values below a
    millionth of the largest drown in rounding, and are left out.
    """
    matrix = difference.flatten(1).double()
    wide = matrix.shape[0] <= matrix.shape[1]
    values, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    singular = values.clamp(min=0).sqrt().flip(0)[:rank]
    kept = max(int((singular > 1e-6 * singular[0]).sum()), 1)
    root, vectors = singular[:kept].sqrt(), vectors.flip(1)[:, :kept]
    up = vectors * root if wide else matrix @ vectors / root
    down = (vectors.T @ matrix) / root[:, None] if wide else (vectors * root).T
    return Lora(up.to(dtype).contiguous(), down.to(dtype).reshape(kept, *difference.shape[1:]).contiguous())


def _of_factors(dtype: torch.dtype) -> torch.dtype:
    """The weights' own, but for those of 8 bits, which only bear what training settled in them."""
    return dtype if dtype.itemsize > 1 else torch.float16


def _is_layer(key: str, difference: Tensor) -> bool:
    return key.endswith(".weight") and difference.ndim in (2, 4) and not key.endswith(TABLES)


def _square(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
