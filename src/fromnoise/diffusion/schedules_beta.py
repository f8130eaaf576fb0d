"""Quantiles of the symmetric Beta distribution, for the schedule of that name."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TERMS, HALVINGS = 60, 60


def beta_quantile(share: Tensor, alpha: float) -> Tensor:
    """Where the Beta(alpha, alpha) distribution has `share` in [0, 1] of its mass to the left; float64, to 1e-12."""
    lower = torch.minimum(share, 1 - share).double()
    low, high = torch.zeros_like(lower), torch.full_like(lower, 0.5)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = _mass(middle, alpha) < lower
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(share < 0.5, high, 1 - high)


def _mass(x: Tensor, alpha: float) -> Tensor:
    """The mass left of x <= 1/2: the incomplete beta function as a series (DLMF 8.17.8), whose terms fall by half."""
    term, total = torch.ones_like(x), torch.ones_like(x)
    for index in range(TERMS):
        term = term * x * (2 * alpha + index) / (alpha + 1 + index)
        total = total + term
    scale = math.exp(math.lgamma(2 * alpha) - 2 * math.lgamma(alpha)) / alpha
    return scale * (x * (1 - x)) ** alpha * total
