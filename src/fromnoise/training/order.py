"""Which sample comes when, and its private randomness: pure functions of (seed, epoch, sample)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.runtime.seeds import generator

GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Draw:
    """One appearance of a sample in training: its index, the epoch, and its place in that epoch."""

    seed: int
    epoch: int
    sample: int
    place: int

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of this draw's own."""
        return generator(purpose, self.seed, self.epoch, self.sample)

    def uniform(self) -> float:
        """In [0, 1), spread evenly over any run of consecutive draws (the golden-ratio sequence, Weyl 1916)."""
        start = torch.rand((), generator=generator("uniform", self.seed, self.epoch), dtype=torch.float64).item()
        return (start + self.place * GOLDEN) % 1.0


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """The order of an epoch."""
    return torch.randperm(count, generator=generator("order", seed, epoch))


def draws(seed: int, step: int, batch: int, count: int) -> list[Draw]:
    """The draws of a step: `batch` consecutive places in an endless row of shuffled epochs of `count` samples."""
    places = (divmod(index, count) for index in range(step * batch, (step + 1) * batch))
    return [Draw(seed, epoch, int(permutation(seed, epoch, count)[place]), place) for epoch, place in places]


def seed_after(seed: int, weights: Path) -> int:
    """The seed of a run that goes on from the weights in a file, so that it doesn't meet their run's noise again.

    A denoiser remembers noise that it has seen with its picture, and learns little from it a second time (docs/log.md).
    """
    return seed + zlib.crc32(weights.read_bytes())
