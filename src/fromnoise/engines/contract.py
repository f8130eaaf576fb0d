"""What an engine is: it takes a module and example inputs, and gives back a callable that does the same, faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fromnoise.engines.cache import Store

Inputs = Sequence[Tensor]
"""A module's inputs in order; an engine's module takes tensors only and gives back one."""


@dataclass(frozen=True)
class Prepared:
    """A module made ready for inputs of the shapes and number formats that it was prepared with.

    `difference` is what `difference` measured against the eager module when it was prepared, `seconds` how long
    preparing took this time, and `cached` says that it came from the disk.
    """

    engine: str
    run: Callable[..., Tensor]
    difference: float
    seconds: float = 0.0
    cached: bool = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the module gives for these inputs, in its own number format."""
        return self.run(*inputs)


class Engine(Protocol):
    """One way to execute a module."""

    name: str

    def available(self) -> str | None:
        """None when it can be used here, else the reason why not and what to do about it."""
        ...

    def cached(self, module: nn.Module, inputs: Inputs, store: Store) -> bool:
        """True when `prepare` would find what it needs on the disk."""
        ...

    def prepare(self, module: nn.Module, inputs: Inputs, store: Store) -> Prepared:
        """The module made ready for inputs like these; FromnoiseError when the engine can't do this module."""
        ...


def difference(one: Tensor, reference: Tensor) -> float:
    """The largest distance between two answers, relative to the largest magnitude of the reference."""
    one, reference = one.double(), reference.double()
    return float((one - reference).abs().max() / reference.abs().max().clamp(min=torch.finfo(torch.double).tiny))
