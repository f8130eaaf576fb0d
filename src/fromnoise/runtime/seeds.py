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

    def __call__(self, sigma: float | None = None, sigma_next: float | None = None) -> Tensor:
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


class BrownianNoise:
    """Unit normal noise read off one Brownian path per picture, along sigma.

    The path is a pure function of (seed, sigma): a virtual Brownian tree (Li et al. 2020, "Scalable gradients for
    stochastic differential equations", section 4), in which every midpoint's bridge is drawn from a seed of its own.
    So noise does not depend on the batch or on what was asked before, and two steps that cover the same levels, in
    one stride or several, add the same noise in all. As in k-diffusion, sigma itself is the path's time.
    """

    SPAN = 2.0**16
    """The highest sigma there is a path for: 16 times that of zero-terminal SNR."""

    DEPTH = 43
    """Halvings of the span; below 1e-8 the path is straight."""

    state: Tensor | None = None

    def __init__(self, seeds: list[int], shape: tuple[int, ...]) -> None:
        self.seeds, self.shape = seeds, shape
        self._known: dict[float, Tensor] = {}

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        """The noise of every picture for the way between two levels, (B, *shape) float32; ValueError above SPAN."""
        if max(sigma, sigma_next) > self.SPAN:
            raise ValueError(f"no Brownian path above sigma {self.SPAN:g}")
        ends = {each: self._known[each] if each in self._known else self._paths(each) for each in (sigma, sigma_next)}
        self._known = ends  # the next step begins at one of them
        return ((ends[sigma_next] - ends[sigma]) / abs(sigma - sigma_next) ** 0.5).float()

    def _paths(self, sigma: float) -> Tensor:
        return torch.stack([self._path(seed, sigma) for seed in self.seeds])

    def _path(self, seed: int, sigma: float) -> Tensor:
        """Where the path of `seed` is at sigma, *shape float64: down the tree, one bridge a level."""
        low, width, node = 0.0, self.SPAN, 1
        at_low = torch.zeros(self.shape, dtype=torch.float64)
        at_high = width**0.5 * self._normal(seed, 0)
        for _ in range(self.DEPTH):
            width /= 2
            middle = (at_low + at_high) / 2 + (width / 2) ** 0.5 * self._normal(seed, node)
            if sigma < low + width:
                at_high, node = middle, 2 * node
            else:
                at_low, low, node = middle, low + width, 2 * node + 1
        return at_low.lerp(at_high, (sigma - low) / width)

    def _normal(self, seed: int, node: int) -> Tensor:
        return torch.randn(self.shape, generator=generator("brownian", seed, node)).double()
