"""Keep a part of the picture while the rest is drawn: blended latent diffusion (Avrahami et al. 2022, algorithm 1).

At every call the kept latents, made as noisy as the level asks, take the place of what the sampler has there; and in
the answer the clean ones do. So any sampler goes straight to them, whatever it remembers, and what is drawn beside
them always sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fromnoise.diffusion.guidance.guided import GuidedDenoiser

Seen = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What the network is shown of the kept part: of its clean latents, the run's first noise and sigma (B, 1, 1, 1)."""


def noisy(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The picture with the run's first noise, as much of it as there is at this level."""
    return clean + sigma * noise


def at_unit_variance(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The picture without noise, as bright as a variance-preserving sampler holds it."""
    return clean * (1 + sigma**2) ** 0.5


@dataclass
class Blended:
    """A denoiser whose answer is `clean` (B, C, h, w) wherever `drawn` (1, 1, h, w) is 0, and in between in between.

    `noise` is the run's first unit noise, of which `seen` makes what the network is shown there below the level
    `first`; None leaves it what the sampler has.
    """

    guided: GuidedDenoiser
    clean: Tensor
    noise: Tensor
    drawn: Tensor
    seen: Seen | None
    first: float

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What `guided` must keep."""
        return self.guided.state

    @state.setter
    def state(self, state: tuple[Tensor, ...]) -> None:
        self.guided.state = state

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The predicted picture (B, C, h, w), the kept part as it is."""
        return self.both(x, sigma)[0]

    def both(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The predicted picture and the unconditional one, for CFG++."""
        guided, unconditional = self.guided.both(self._shown(x, sigma), sigma)
        return self._kept(guided), self._kept(unconditional)

    def _shown(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.seen is None:
            return x
        level = sigma[:, None, None, None].to(x)
        kept = self.drawn * x + (1 - self.drawn) * self.seen(self.clean, self.noise, level).to(x)
        return kept.where(level < self.first * (1 - 1e-6), x)

    def _kept(self, denoised: Tensor) -> Tensor:
        return self.drawn * denoised + (1 - self.drawn) * self.clean.to(denoised)
