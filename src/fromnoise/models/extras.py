"""What a U-Net may be given beside latents, time and words."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Extras:
    """Optional inputs of a U-Net or ControlNet; B is the batch.

    pooled     (B, P): SDXL, the pooled text state
    time_ids   (B, 6): SDXL, original height and width, crop top and left, target height and width, in pixels
    guidance   (B,): LCM's w, which is the usual guidance scale minus 1 (Luo et al. 2023); other networks ignore it
    control    ControlNets' residuals
    perturbed  (B,) bool: the rows whose self-attention in the middle block is the identity (PAG, Ahn et al. 2024)
    """

    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    guidance: Tensor | None = None
    control: Control | None = None
    perturbed: Tensor | None = None


NO_EXTRAS = Extras()
