"""Gradient checkpointing: less memory for a little more time (Chen et al. 2016, "Sublinear memory cost")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from fromnoise.nn.attention import SpatialTransformer
from fromnoise.nn.resnet import ResnetBlock

Context = Callable[[], AbstractContextManager[Any]]


@contextmanager
def forgetting(module: nn.Module, again: Context) -> Iterator[None]:
    """While this lasts, residual blocks and transformers keep only their inputs, for the gradient to compute again.

    It is computed inside `again()`: what surrounded the forward pass may be gone by then.
    """
    contexts = lambda: (nullcontext(), again())  # noqa: E731
    blocks = [each for each in module.modules() if isinstance(each, ResnetBlock | SpatialTransformer)]
    for each in blocks:
        each.forward = partial(checkpoint, each.forward, use_reentrant=False, context_fn=contexts)
    try:
        yield
    finally:
        for each in blocks:
            del each.forward
