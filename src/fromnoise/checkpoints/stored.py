"""A tensor that still lies in its file: what it is, and how to read it once it is wanted.

Formats make these, key maps rename and reshape them, and only loading or writing reads them, one at a time, so that
memory never holds a checkpoint twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stored:
    """A tensor's shape and dtype, and the function that reads it on the CPU (mapped from its file where possible)."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Stored:
        """A tensor that is in memory already."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor.detach())

    @property
    def bytes(self) -> int:
        """How many bytes the values take."""
        return prod(self.shape) * self.dtype.itemsize

    def reshaped(self, *shape: int) -> Stored:
        """The same values in another shape."""
        return Stored(shape, self.dtype, lambda: self.read().reshape(shape))

    def transposed(self) -> Stored:
        """A matrix with rows and columns swapped."""
        return Stored(self.shape[::-1], self.dtype, lambda: self.read().T.contiguous())

    def rows(self, first: int, last: int) -> Stored:
        """Rows `first` to `last`, the latter left out."""
        return Stored((last - first, *self.shape[1:]), self.dtype, lambda: self.read()[first:last])


Tensors = Mapping[str, Stored]
"""Stored tensors by key."""


def joined(parts: Iterable[Stored]) -> Stored:
    """Several tensors of one width and dtype stacked as rows of one."""
    parts = tuple(parts)
    rows = sum(part.shape[0] for part in parts)
    return Stored((rows, *parts[0].shape[1:]), parts[0].dtype, lambda: torch.cat([part.read() for part in parts]))


def main_dtype(tensors: Iterable[Stored]) -> torch.dtype | None:
    """The floating-point dtype that most of the bytes have; None without any."""
    sizes: dict[torch.dtype, int] = {}
    for each in tensors:
        if each.dtype.is_floating_point:
            sizes[each.dtype] = sizes.get(each.dtype, 0) + each.bytes
    return max(sizes, key=sizes.__getitem__, default=None)
