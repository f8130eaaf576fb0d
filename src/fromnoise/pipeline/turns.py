"""Parts of a model that take turns in memory: each is read when it is needed, and goes when the next one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from fromnoise.nn.eight_bit import EightBit
from fromnoise.runtime.memory import give_back

Fill = Callable[[nn.Module], object]
"""Gives a module on the meta device its weights."""


class Turns:
    """Which parts hold weights now; parts that were never added always do. For one drawing at a time."""

    def __init__(self) -> None:
        self._fills: dict[nn.Module, Fill] = {}
        self._awake: set[nn.Module] = set()
        self._pinned = False

    def __bool__(self) -> bool:
        """True when any part takes turns."""
        return bool(self._fills)

    def add(self, part: nn.Module, fill: Fill) -> None:
        """Let a part on the meta device take turns."""
        self._fills[part] = fill

    def take(self, *parts: nn.Module) -> None:
        """Give these parts their weights; all others lose theirs, unless they are pinned."""
        wanted = {each for each in parts if each in self._fills}
        if wanted <= self._awake:
            return
        if not self._pinned:
            for each in self._awake - wanted:
                empty(each)
            self._awake &= wanted
            give_back()
        for each in wanted - self._awake:
            self._fills[each](each)
        self._awake |= wanted

    def pin(self) -> None:
        """Give all parts their weights, for good."""
        self._pinned = True
        self.take(*self._fills)

    def before(self, part: nn.Module, call: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The same call, for which the part is there."""
        if part not in self._fills:
            return call

        def taken(*args: object) -> torch.Tensor:
            self.take(part)
            return call(*args)

        return taken


def empty(module: nn.Module) -> None:
    """Take a module's weights away: what is left are shapes."""
    for each in module.modules():
        if isinstance(each, EightBit):
            each.release()
        for name, weight in each.named_parameters(recurse=False):
            shape = torch.empty(weight.shape, dtype=weight.dtype, device="meta")
            setattr(each, name, nn.Parameter(shape, requires_grad=False))


def largest(parts: Sequence[float], turns: Turns) -> float:
    """What parts of so many bytes hold together: the largest one's, where they take turns."""
    return max(parts) if turns else sum(parts)
