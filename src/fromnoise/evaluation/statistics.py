"""How sure a measured share is: intervals of proportions, of their ratios, and of means."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from fromnoise.runtime.seeds import generator

Z95 = 1.959963984540054
"""Standard deviations on either side of the mean of a normal distribution that hold 95 %."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, from `n` pictures."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, z: float = Z95) -> Estimate:
    """The share successes / n with its score interval (Wilson 1927), all in [0, 1]. `n` must be positive."""
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, max(0.0, centre - reach), min(1.0, centre + reach), n)


def ratio(part: Estimate, whole: Estimate) -> Estimate | None:
    """part / whole of two independent shares, with the interval that follows from theirs.

    Donner & Zou 2012 ("Closed-form confidence intervals for functions of the normal mean and standard deviation"),
    the method of variance estimates recovery for a ratio. None when the whole is 0.
    """
    if whole.value == 0:
        return None
    product = part.value * whole.value
    low = _root(product, part.low, whole.high, part.value, whole.value, -1.0)
    high = _root(product, part.high, whole.low, part.value, whole.value, 1.0)
    return Estimate(part.value / whole.value, max(0.0, low), high, part.n)


def _root(product: float, part_limit: float, whole_limit: float, part: float, whole: float, sign: float) -> float:
    """One limit of the ratio."""
    divisor = whole_limit * (2 * whole - whole_limit)
    inner = product**2 - part_limit * (2 * part - part_limit) * divisor
    return (product + sign * sqrt(max(0.0, inner))) / divisor


def mean(values: Tensor, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """The mean of values (N,) with its percentile bootstrap interval (Efron 1979)."""
    values = values.double()
    picks = torch.randint(len(values), (resamples, len(values)), generator=generator("bootstrap", seed))
    low, high = values[picks].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return Estimate(float(values.mean()), low, high, len(values))
