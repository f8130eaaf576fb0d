"""What an adapter adds to one layer's weight, in the few numbers that it is kept in.

Each kind knows the size of its delta, the delta itself, and how to act beside a layer without making it. Shapes: O and
I the layer's outputs and inputs, k a convolution's kernel, r the rank. A delta is a matrix (O, I*k*k) of the layer's
weight with everything but its outputs flattened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.nn.convolution import shape_of

Layer: TypeAlias = nn.Linear | nn.Conv2d
"""The layers that an adapter can change."""

Side = Callable[[Tensor], Tensor]
"""What an adapter adds to a layer's output, from the layer's input."""


class Factors(Protocol):
    """The numbers of one layer's delta."""

    @property
    def rank(self) -> int | None:
        """The rank r of the factorised parts; None where nothing is factorised."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(O, I*k*k) of the delta, without making it."""
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same with its tensors there and in that format."""
        ...

    def delta(self) -> Tensor:
        """The delta (O, I*k*k), in the format of the factors."""
        ...

    def side(self, layer: Layer) -> Side:
        """The delta acting beside the layer, whose strides and padding it takes."""
        ...


@dataclass(frozen=True)
class _Base:
    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same with its tensors there and in that format."""
        tensors = {name: each for name, each in self.tensors().items() if each is not None}
        return replace(self, **{name: each.to(device, dtype) for name, each in tensors.items()})

    def tensors(self) -> dict[str, Tensor | None]:
        """The factors by name, None for those that are left out."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: each for name, each in named.items() if name != "scale"}


@dataclass(frozen=True)
class Lora(_Base):
    """scale * up @ down (Hu et al. 2021, section 4.1): up (O, r), down (r, I) or (r, I, k, k).

    With `mid` (r, r, k, k), a convolution's CP decomposition as LyCORIS' LoCon has it, down is (r, I).
    """

    up: Tensor
    down: Tensor
    mid: Tensor | None = None
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """The number of columns of `up`."""
        return self.down.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(O, I*k*k) of the delta."""
        kernel = 1 if self.mid is None else self.mid[0, 0].numel()
        return self.up.shape[0], self.down[0].numel() * kernel

    def delta(self) -> Tensor:
        """The delta (O, I*k*k)."""
        up, down = self.up.flatten(1), self.down.flatten(1)
        if self.mid is not None:
            down = torch.einsum("srhw,ri->sihw", self.mid, down).flatten(1)
        return up @ down * self.scale

    def side(self, layer: Layer) -> Side:
        """Down, then up: r numbers a position in between."""
        up, down = self.up.flatten(1), self.down
        if isinstance(layer, nn.Linear):
            down = down.flatten(1)
            return lambda x: F.linear(F.linear(x, down), up) * self.scale
        if self.mid is not None:
            first, middle = _square(down.flatten(1), (1, 1)), self.mid
            return lambda x: _convolve(_as(layer, middle), F.conv2d(x, first), up) * self.scale
        inner = _as(layer, down.reshape(len(down), -1, *layer.kernel_size))
        return lambda x: _convolve(inner, x, up) * self.scale


@dataclass(frozen=True)
class Dense(_Base):
    """A kind whose delta has to be made before it can act."""

    def delta(self) -> Tensor:
        """The delta (O, I*k*k)."""
        raise NotImplementedError

    def side(self, layer: Layer) -> Side:
        """The layer again, with the delta for a weight and no bias."""
        delta = self.delta().reshape(shape_of(layer))
        if isinstance(layer, nn.Linear):
            return lambda x: F.linear(x, delta)
        return _as(layer, delta)


@dataclass(frozen=True)
class Loha(Dense):
    """scale * (w1_a @ w1_b) * (w2_a @ w2_b), entry by entry (FedPara: Hyeon-Woo et al. 2022, section 2.2).

    a (O, r) and b (r, I*k*k); with the Tucker cores t1 and t2 (r, r, k, k), a is (r, O) and b (r, I). The names are
    those of LyCORIS.
    """

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor | None = None
    t2: Tensor | None = None
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """The number of rows of `w1_b`."""
        return self.w1_b.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(O, I*k*k) of the delta."""
        return _pair_size(self.w1_a, self.w1_b, self.t1)

    def delta(self) -> Tensor:
        """The delta (O, I*k*k)."""
        one, two = _pair(self.w1_a, self.w1_b, self.t1), _pair(self.w2_a, self.w2_b, self.t2)
        return one * two * self.scale


@dataclass(frozen=True)
class Lokr(Dense):
    """scale times the Kronecker product of w1 and w2 (LyCORIS: Yeh et al. 2023, section 3.3).

    Each is whole or a product a @ b; w2 carries the kernel, whole as (O2, I2, k, k), factorised as a (O2, r) and b
    (r, I2*k*k), or with a Tucker core t2 (r, r, k, k), a (r, O2) and b (r, I2).
    """

    w1: Tensor | None = None
    w1_a: Tensor | None = None
    w1_b: Tensor | None = None
    w2: Tensor | None = None
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None
    t2: Tensor | None = None
    scale: float = 1.0

    @property
    def rank(self) -> int | None:
        """The rank of the factorised side; None when both are whole."""
        factor = self.w2_b if self.w2_b is not None else self.w1_b
        return None if factor is None else factor.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(O, I*k*k) of the delta."""
        one, two = _side_size(self.w1, self.w1_a, self.w1_b, None), _side_size(self.w2, self.w2_a, self.w2_b, self.t2)
        return one[0] * two[0], one[1] * two[1]

    def delta(self) -> Tensor:
        """The delta (O, I*k*k)."""
        one = _whole(self.w1, self.w1_a, self.w1_b, None)
        return torch.kron(one, _whole(self.w2, self.w2_a, self.w2_b, self.t2)) * self.scale


def _pair(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """a @ b, or with a Tucker core what it makes of both, flattened to a matrix."""
    if core is None:
        return a.flatten(1) @ b.flatten(1)
    return torch.einsum("ij...,io,jn->on...", core, a, b).flatten(1)


def _pair_size(a: Tensor, b: Tensor, core: Tensor | None) -> tuple[int, int]:
    if core is None:
        return a.shape[0], b[0].numel()
    return a.shape[1], b.shape[1] * core[0, 0].numel()


def _whole(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None) -> Tensor:
    if whole is not None:
        return whole.flatten(1)
    assert a is not None and b is not None
    return _pair(a, b, core)


def _side_size(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None) -> tuple[int, int]:
    if whole is not None:
        return whole.shape[0], whole[0].numel()
    assert a is not None and b is not None
    return _pair_size(a, b, core)


def _square(matrix: Tensor, kernel: tuple[int, int]) -> Tensor:
    return matrix.reshape(len(matrix), -1, *kernel)


def _as(layer: nn.Conv2d, weight: Tensor) -> Side:
    """A convolution like the layer, with another weight and no bias."""
    assert isinstance(layer.padding, tuple)
    padding: Any = layer.padding
    return lambda x: F.conv2d(x, weight, None, layer.stride, padding, layer.dilation)


def _convolve(inner: Side, x: Tensor, up: Tensor) -> Tensor:
    """The inner convolution, then `up` (O, r) at every pixel."""
    return F.conv2d(inner(x), _square(up, (1, 1)))
