"""Randomness that depends on what is drawn, never on what was drawn before it."""

from __future__ import annotations

import hashlib
import secrets

import torch
from torch import Tensor

SEED_RANGE = 2**32


def fresh_seed() -> int:
    """A new seed in [0, 2**32) from the operating system."""
    return secrets.randbelow(SEED_RANGE)


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose stream is a pure function of `key`: (seed, epoch, sample id), say."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class PictureNoise:
    """One stream of unit normal noise per picture, so a picture's noise does not depend on its batch.

    Stream k is torch's CPU generator seeded with seed k, as diffusers draws with a list of generators.
    """

    def __init__(self, seeds: list[int], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, sigma: Tensor | None = None, sigma_next: Tensor | None = None) -> Tensor:
        """The next noise of every picture, (B, *shape) float32; the sigmas are for sources that need them."""
        return torch.stack([torch.randn(self.shape, generator=each) for each in self._generators])

    @property
    def state(self) -> Tensor:
        """Where each stream stands, (B, state) uint8: enough to go on in another process."""
        return torch.stack([each.get_state() for each in self._generators])

    @state.setter
    def state(self, state: Tensor) -> None:
        for each, row in zip(self._generators, state, strict=True):
            each.set_state(row.clone())  # the generator reads past a view
