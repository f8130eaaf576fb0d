"""What a U-Net may be given beside latents, time and words."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Control:
    """What ControlNets add to a U-Net's kept maps (Zhang et al. 2023): `down` on the way down, `mid` in the middle.

    Several are summed: `canny.scaled(0.7) + depth.scaled(0.5)`.
    """

    down: tuple[Tensor, ...]
    mid: Tensor

    def scaled(self, weight: float) -> Control:
        """The same control, `weight` times as strong."""
        return Control(tuple(each * weight for each in self.down), self.mid * weight)

    def __add__(self, other: Control) -> Control:
        """Both controls at once."""
        down = tuple(one + two for one, two in zip(self.down, other.down, strict=True))
        return Control(down, self.mid + other.mid)


@dataclass
class Reuse:
    """One run's memory of the deep layers' work (DeepCache: Ma et al. 2023, arXiv 2312.00858, section 3.2).

    Every `every`-th call of the U-Net computes all of it and keeps what reaches the outermost `layers` layers of the
    way up; the calls between compute only those and as many on the way down. What is kept changes slowly from step to
    step. A call with another number of rows than before (guidance beginning or ending) computes everything.
    """

    every: int
    layers: int
    calls: int = 0
    kept: Tensor | None = field(default=None, repr=False)

    def take(self, rows: int) -> Tensor | None:
        """What to go on from in a call with so many rows; None where it must compute all and `keep` that."""
        due = self.calls % self.every == 0 or self.kept is None or len(self.kept) != rows
        self.calls = 1 if due else self.calls + 1
        return None if due else self.kept

    def keep(self, x: Tensor) -> None:
        """Remember what reached the outermost layers."""
        self.kept = x.detach() if self.every > 1 else None

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What must be saved with a Step to go on bit-exactly."""
        return () if self.kept is None else (torch.tensor(self.calls), self.kept)

    @state.setter
    def state(self, state: tuple[Tensor, ...]) -> None:
        self.calls, self.kept = (int(state[0]), state[1]) if state else (0, None)


@dataclass(frozen=True)
class Extras:
    """Optional inputs of a U-Net or ControlNet; B is the batch.

    pooled     (B, P): SDXL, the pooled text state
    time_ids   (B, 6): SDXL, original height and width, crop top and left, target height and width, in pixels
    guidance   (B,): LCM's w, which is the usual guidance scale minus 1 (Luo et al. 2023); other networks ignore it
    control    ControlNets' residuals
    perturbed  (B,) bool: the rows whose self-attention in the middle block is the identity (PAG, Ahn et al. 2024)
    merge      share of the tokens that self-attention does without at the finest level that attends
    reuse      the run's memory of deep layers; a U-Net that is given it both reads and fills it
    """

    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    guidance: Tensor | None = None
    control: Control | None = None
    perturbed: Tensor | None = None
    merge: float = 0.0
    reuse: Reuse | None = None


NO_EXTRAS = Extras()
