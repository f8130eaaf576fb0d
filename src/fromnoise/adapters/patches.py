"""Changes of one layer that can be put on and taken off, after which it is what it was, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from fromnoise.adapters.factors import Layer, Side
from fromnoise.adapters.matching import Place
from fromnoise.nn.convolution import dense, laid_out
from fromnoise.nn.eight_bit import EightBit

Forward = Callable[..., Any]
"""What a module does when it is called."""


class Patch(Protocol):
    """A change of one layer that can be put on and taken off."""

    def on(self) -> None:
        """Put it on."""
        ...

    def off(self) -> None:
        """Take it off: the layer is what it was, bit for bit."""
        ...


Weighed = list[tuple[float, Place]]
"""What several adapters add to one layer."""


class Fused:
    """A layer's weight replaced by weight + deltas, summed in float32 (float64 for float64) and made only once.

    The new weight is made when it is first needed, and again when the layer has got another weight since.
    """

    def __init__(self, layer: Layer, deltas: Weighed) -> None:
        self.layer, self.deltas = layer, deltas
        self._original: nn.Parameter | None = None
        self._sum: nn.Parameter | None = None

    @property
    def missing(self) -> int:
        """How many numbers are still to be summed, those of each adapter."""
        if self._sum is not None:
            return 0
        height, width = self.deltas[0][1].factors.size
        return height * width * len(self.deltas)

    def on(self) -> None:
        """The sum is the weight."""
        weight = cast(nn.Parameter, self.layer.weight)
        if self._sum is None or self._original is not weight or not _alike(self._sum, weight):
            self._sum = self._summed(weight)
        self._original = weight
        self._give(self._sum)

    def off(self) -> None:
        """The tensor that was there is the weight again."""
        assert self._original is not None
        self._give(self._original)

    def _give(self, weight: nn.Parameter) -> None:
        """The layer has another weight. Assigning it is checked, for 1 or 2 ms at every call of a network."""
        self.layer._parameters["weight"] = weight

    # The caller may be in inference mode, but what is kept must serve one that wants gradients too.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _summed(self, weight: Tensor) -> nn.Parameter:
        dtype = torch.promote_types(weight.dtype, torch.float32)
        total = dense(weight).detach().to(dtype, copy=True)
        for strength, place in self.deltas:
            total += strength * place.delta(weight.device, dtype)
        summed = torch.empty_like(dense(weight)).copy_(total)
        if weight.is_mkldnn and isinstance(self.layer, nn.Conv2d):
            summed = laid_out(summed, self.layer)
        return nn.Parameter(summed, requires_grad=False)


class Rerouted:
    """A module whose forward is another function for a while."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def on(self) -> None:
        """The module's forward is `around` what it was."""
        self._before = self.module.__dict__.get("forward")
        self.module.forward = self.around(self.module.forward)

    def off(self) -> None:
        """The module's forward is what it was."""
        if self._before is None:
            del self.module.forward
        else:
            self.module.forward = self._before

    def around(self, plain: Forward) -> Forward:
        """The new forward, of the old one."""
        raise NotImplementedError


class Beside(Rerouted):
    """A layer whose output is added to: no memory for a second weight, at the cost of some time in every call."""

    def __init__(self, layer: Layer, deltas: Weighed) -> None:
        super().__init__(layer)
        self.layer, self.deltas = layer, deltas
        self._made_for: tuple[torch.device, torch.dtype] | None = None
        self._sides: list[tuple[float, Side]] = []

    def around(self, plain: Forward) -> Forward:
        """Its own output plus what the side paths make of its input, in the layer's number format."""
        like = self.layer.weight.device, _format(self.layer)
        if like != self._made_for:
            self._made_for, self._sides = like, self._sides_for(*like)
        sides = self._sides
        return lambda x, **more: sum((strength * side(x) for strength, side in sides), start=plain(x, **more))

    @torch.inference_mode(False)  # for the reason that `Fused` has
    def _sides_for(self, device: torch.device, dtype: torch.dtype) -> list[tuple[float, Side]]:
        return [(strength, place.factors.to(device, dtype).side(self.layer)) for strength, place in self.deltas]


def all_on(patches: Sequence[Patch]) -> None:
    """Put all on, or none when one fails."""
    with ExitStack() as undo:
        for each in patches:
            each.on()
            undo.callback(each.off)
        undo.pop_all()


def all_off(patches: Sequence[Patch]) -> None:
    """Take all off, the last one first."""
    for each in reversed(patches):
        each.off()


def _format(layer: Layer) -> torch.dtype:
    """The number format that a layer computes in; an 8-bit one answers in that of its bias."""
    kept = layer.weight if not isinstance(layer, EightBit) or layer.bias is None else layer.bias
    return kept.dtype


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.dtype == other.dtype
