"""How a word's weight changes what the text encoder made of it.

Shapes: N chunks, M positions, C width. All take states (N, M, C), weights (N, M) and a way to the states (1, M, C) of
the empty prompt, and return states (N, M, C). Weights of 1 change nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

Empty = Callable[[], Tensor]
Weighting = Callable[[Tensor, Tensor, Empty], Tensor]


def multiplied(states: Tensor, weights: Tensor, empty: Empty) -> Tensor:
    """States times weights, each chunk scaled to the mean it had: the AUTOMATIC1111 web UI's "Original" emphasis."""
    weighted = states * weights[..., None]
    mean, new_mean = (each.mean((1, 2), keepdim=True) for each in (states, weighted))
    return weighted * (mean / new_mean)


def away_from_empty(states: Tensor, weights: Tensor, empty: Empty) -> Tensor:
    """`(z - z_empty) * w + z_empty`: ComfyUI's, and compel's."""
    weights, base = weights[..., None], empty()
    return torch.where(weights == 1.0, states, (states - base) * weights + base)


def unweighted(states: Tensor, weights: Tensor, empty: Empty) -> Tensor:
    """States as they are: diffusers'."""
    return states


WEIGHTINGS: Mapping[str, Weighting] = MappingProxyType(
    {"a1111": multiplied, "comfyui": away_from_empty, "none": unweighted}
)
"""By the names in `request.WEIGHTINGS`."""
