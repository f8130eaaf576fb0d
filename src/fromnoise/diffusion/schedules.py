"""Noise levels: what a model was trained on, and which of them a drawing visits.

Every schedule gives `sigmas`, (n + 1,) float64, falling from the first noise level to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.runtime.errors import FromnoiseError


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise levels of the training timesteps, sigma_t = sqrt((1 - abar_t) / abar_t), (T,) float64, rising.

    Between timesteps sigma is linear in the timestep, diffusers' convention for its Euler scheduler.
    """

    sigmas: Tensor

    @classmethod
    def from_betas(cls, kind: str, start: float, end: float, count: int = 1000) -> NoiseSchedule:
        """The schedule of diffusers' `beta_schedule` "linear" (Ho et al. 2020) or "scaled_linear" (Rombach et al.)."""
        if kind not in BETAS:
            raise FromnoiseError(f"no beta schedule {kind!r}; known: {', '.join(BETAS)}")
        kept = (1 - BETAS[kind](start, end, count)).cumprod(0)
        return cls(((1 - kept) / kept).sqrt())

    def __len__(self) -> int:
        return len(self.sigmas)

    def sigma(self, time: Tensor) -> Tensor:
        """Noise levels at timesteps in [0, T - 1], fractions allowed."""
        time = time.double()
        low = time.floor().long().clamp(0, len(self) - 2)
        return self.sigmas[low].lerp(self.sigmas[low + 1], time - low)

    def time(self, sigma: Tensor) -> Tensor:
        """Timesteps (float32) at noise levels, the inverse of `sigma`, clamped to the trained range."""
        level = sigma.detach().double().cpu().clamp(self.sigmas[0], self.sigmas[-1])
        low = (torch.searchsorted(self.sigmas, level, right=True) - 1).clamp(0, len(self) - 2)
        share = (level - self.sigmas[low]) / (self.sigmas[low + 1] - self.sigmas[low])
        return (low + share).to(device=sigma.device, dtype=torch.float32)


def _linear(start: float, end: float, count: int) -> Tensor:
    return torch.linspace(start, end, count, dtype=torch.float32).double()


def _scaled_linear(start: float, end: float, count: int) -> Tensor:
    return (torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2).double()


BETAS: dict[str, Callable[[float, float, int], Tensor]] = {"linear": _linear, "scaled_linear": _scaled_linear}


def at_times(schedule: NoiseSchedule, times: Tensor) -> Tensor:
    """Sigmas at falling timesteps, then 0."""
    return torch.cat([schedule.sigma(times), torch.zeros(1, dtype=torch.float64)])


def leading(schedule: NoiseSchedule, steps: int, offset: int = 1) -> Tensor:
    """Every (T // steps)-th timestep, counted from `offset` up (Lin et al. 2023, table 2)."""
    _enough(schedule, steps)
    times = torch.arange(steps).flip(0) * (len(schedule) // steps) + offset
    return at_times(schedule, times.clamp(max=len(schedule) - 1))


def linspace(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Timesteps evenly from the last to the first, both included (Lin et al. 2023, table 2)."""
    return at_times(schedule, torch.linspace(0, len(schedule) - 1, steps, dtype=torch.float64).flip(0))


def trailing(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Every (T / steps)-th timestep, counted from the last down (Lin et al. 2023, table 2)."""
    _enough(schedule, steps)
    times = len(schedule) - torch.arange(steps, dtype=torch.float64) * (len(schedule) / steps)
    return at_times(schedule, times.round() - 1)


def karras(low: float, high: float, steps: int, rho: float = 7.0) -> Tensor:
    """Even steps in sigma^(1/rho) from `high` to `low`, then 0 (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    root = high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))
    return torch.cat([root**rho, torch.zeros(1, dtype=torch.float64)])


def exponential(low: float, high: float, steps: int) -> Tensor:
    """Even steps in log sigma from `high` to `low`, then 0 (k-diffusion's `get_sigmas_exponential`)."""
    levels = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64).exp()
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def _enough(schedule: NoiseSchedule, steps: int) -> None:
    if steps > len(schedule):
        raise FromnoiseError(f"{steps} steps are more than the {len(schedule)} timesteps there are; ask for fewer")


SPACINGS: dict[str, Callable[[NoiseSchedule, int, int], Tensor]] = {
    "leading": leading,
    "linspace": lambda schedule, steps, offset: linspace(schedule, steps),
    "trailing": lambda schedule, steps, offset: trailing(schedule, steps),
    "karras": lambda schedule, steps, offset: karras(float(schedule.sigmas[0]), float(schedule.sigmas[-1]), steps),
    "exponential": lambda schedule, steps, offset: exponential(
        float(schedule.sigmas[0]), float(schedule.sigmas[-1]), steps
    ),
}
"""Schedules by name: (training schedule, steps, `steps_offset` of the scheduler config) to sigmas."""
