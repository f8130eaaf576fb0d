"""Noise levels: what a model was trained on, and which of them a drawing visits.

Every schedule gives `sigmas`, (n + 1,) float64, falling from the first noise level to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fromnoise.diffusion.schedules_beta import beta_quantile
from fromnoise.runtime.errors import FromnoiseError

LONGEST = 100_000
"""Training timesteps that are believed; published models have 1000."""

SMALLEST_ALPHA_BAR = 2.0**-24
"""What stands for the 0 of zero-terminal SNR: sigma is then 4096, where it would be infinite (diffusers' clamp)."""


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise levels of the training timesteps, sigma_t = sqrt((1 - abar_t) / abar_t), (T,) float64, rising.

    Between timesteps sigma is linear in the timestep, diffusers' convention for its Euler scheduler.
    """

    sigmas: Tensor

    @classmethod
    def from_betas(cls, kind: str, start: float, end: float, count: int = 1000) -> Self:
        """The schedule of diffusers' `beta_schedule` called `kind`, a key of BETAS.

        FromnoiseError for another, or for numbers that no schedule has.
        """
        if not isinstance(kind, str) or kind not in BETAS:
            raise FromnoiseError(f"no beta schedule {kind!r}; known: {', '.join(BETAS)}")
        for name, value in (("beta_start", start), ("beta_end", end)):
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise FromnoiseError(f"the scheduler's {name} must lie between 0 and 1, not be {value!r}")
        if not isinstance(count, int) or not 2 <= count <= LONGEST:
            raise FromnoiseError(f"the scheduler's num_train_timesteps must be 2 to {LONGEST}, not {count!r}")
        return cls.from_trained_betas(BETAS[kind](start, end, count))

    @classmethod
    def from_trained_betas(cls, betas: Tensor | Sequence[float]) -> Self:
        """The schedule of the betas themselves, (T,) in (0, 1): a scheduler config's `trained_betas`."""
        try:
            values = torch.as_tensor(betas, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise FromnoiseError(f"the scheduler's trained_betas are no list of numbers ({error})") from error
        if values.ndim != 1 or len(values) < 2 or not bool(((values >= 0) & (values <= 1)).all()):
            raise FromnoiseError("the scheduler's trained_betas must be numbers between 0 and 1, two at least")
        return cls._from_alpha_bars((1 - values).cumprod(0))

    @classmethod
    def _from_alpha_bars(cls, kept: Tensor) -> Self:
        return cls(((1 - kept) / kept).sqrt())

    def zero_terminal(self) -> Self:
        """The same, moved and stretched so that the last timestep is pure noise (Lin et al. 2023, algorithm 1).

        The last sigma is 4096; a schedule that is so already is given back.
        """
        roots = (self.sigmas**2 + 1).rsqrt()
        if float(roots[-1] ** 2) <= SMALLEST_ALPHA_BAR * (1 + 1e-9):
            return self
        kept = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
        return self._from_alpha_bars(kept.clamp(min=SMALLEST_ALPHA_BAR))

    def __len__(self) -> int:
        return len(self.sigmas)

    def sigma(self, time: Tensor) -> Tensor:
        """Noise levels at timesteps in [0, T - 1], fractions allowed."""
        return _between(self.sigmas, time)

    def time(self, sigma: Tensor) -> Tensor:
        """Timesteps (float32) at noise levels, the inverse of `sigma`, clamped to the trained range."""
        level = sigma.detach().double().cpu().clamp(self.sigmas[0], self.sigmas[-1])
        low = (torch.searchsorted(self.sigmas, level, right=True) - 1).clamp(0, len(self) - 2)
        share = (level - self.sigmas[low]) / (self.sigmas[low + 1] - self.sigmas[low])
        return (low + share).to(device=sigma.device, dtype=torch.float32)


def _between(values: Tensor, places: Tensor) -> Tensor:
    """Values at fractional places, linearly."""
    places = places.double()
    low = places.floor().long().clamp(0, len(values) - 2)
    return values[low].lerp(values[low + 1], places - low)


def _linear(start: float, end: float, count: int) -> Tensor:
    """Ho et al. 2020, section 4."""
    return torch.linspace(start, end, count, dtype=torch.float32).double()


def _scaled_linear(start: float, end: float, count: int) -> Tensor:
    """Linear in the square root: latent diffusion (Rombach et al. 2022)."""
    return (torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2).double()


def _squared_cosine(start: float, end: float, count: int) -> Tensor:
    """Nichol & Dhariwal 2021, eq. 17, betas at most 0.999; start and end do not matter."""
    time = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    kept = ((time + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)


BETAS: dict[str, Callable[[float, float, int], Tensor]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _squared_cosine,
}
"""Training schedules by diffusers' names: (beta_start, beta_end, count) to betas (count,) float64."""


def _to_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels.double(), torch.zeros(1, dtype=torch.float64)])


def at_times(schedule: NoiseSchedule, times: Tensor) -> Tensor:
    """Sigmas at falling timesteps, then 0."""
    return _to_zero(schedule.sigma(times))


def leading(schedule: NoiseSchedule, steps: int, offset: int = 1) -> Tensor:
    """Every (T // steps)-th timestep, counted from `offset` up (Lin et al. 2023, table 2)."""
    _enough(schedule, steps)
    times = torch.arange(steps).flip(0) * (len(schedule) // steps)
    return at_times(schedule, times + min(offset, len(schedule) - 1 - int(times[0])))


def linspace(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Timesteps evenly from the last to the first, both included (Lin et al. 2023, table 2)."""
    return at_times(schedule, torch.linspace(0, len(schedule) - 1, steps, dtype=torch.float64).flip(0))


def trailing(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Every (T / steps)-th timestep, counted from the last down (Lin et al. 2023, table 2)."""
    _enough(schedule, steps)
    times = len(schedule) - torch.arange(steps, dtype=torch.float64) * (len(schedule) / steps)
    return at_times(schedule, times.round() - 1)


def zero_terminal_snr(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Trailing from pure noise, sigma 4096, whether or not the schedule goes so far (Lin et al. 2023, section 3)."""
    return trailing(schedule.zero_terminal(), steps)


def simple(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Every (T / steps)-th timestep, counted from the last down and rounded down: ComfyUI's and AUTOMATIC1111's."""
    _enough(schedule, steps)
    back = torch.tensor([int(index * (len(schedule) / steps)) for index in range(steps)])
    return at_times(schedule, len(schedule) - 1 - back)


def normal(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Timesteps evenly from the last to the first, sigma between them in its logarithm (k-diffusion's `get_sigmas`)."""
    return _at_log_times(schedule, torch.linspace(len(schedule) - 1, 0, steps, dtype=torch.float64))


def sgm_uniform(schedule: NoiseSchedule, steps: int) -> Tensor:
    """`normal` in one step more, without the lowest level: AUTOMATIC1111's and ComfyUI's."""
    return _at_log_times(schedule, torch.linspace(len(schedule) - 1, 0, steps + 1, dtype=torch.float64)[:-1])


def _at_log_times(schedule: NoiseSchedule, times: Tensor) -> Tensor:
    return _to_zero(_between(schedule.sigmas.log(), times).exp())


def lcm(schedule: NoiseSchedule, steps: int, distilled: int = 50) -> Tensor:
    """Evenly from the `distilled` timesteps that LCM models know, the last one first (diffusers' LCMScheduler).

    With more steps than `distilled`, as if the model had been distilled on so many.
    """
    _enough(schedule, steps)
    distilled = max(steps, distilled)
    known = torch.arange(distilled, 0, -1) * (len(schedule) // distilled) - 1
    return at_times(schedule, known[torch.arange(steps) * distilled // steps])


def karras(low: float, high: float, steps: int, rho: float = 7.0) -> Tensor:
    """Even steps in sigma^(1/rho) from `high` to `low`, then 0 (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    root = high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))
    return _to_zero(root**rho)


def exponential(low: float, high: float, steps: int) -> Tensor:
    """Even steps in log sigma from `high` to `low`, then 0 (k-diffusion's `get_sigmas_exponential`)."""
    return polyexponential(low, high, steps, rho=1.0)


def polyexponential(low: float, high: float, steps: int, rho: float = 1.0) -> Tensor:
    """Log sigma falls with the power `rho` of the place, then 0 (k-diffusion's `get_sigmas_polyexponential`).

    At AUTOMATIC1111's default rho of 1 it is `exponential`.
    """
    ramp = torch.linspace(1, 0, steps, dtype=torch.float64) ** rho
    return _to_zero((math.log(low) + ramp * math.log(high / low)).exp())


def beta(low: float, high: float, steps: int, alpha: float = 0.6) -> Tensor:
    """Sigma by the quantiles of the Beta(alpha, alpha) distribution between `low` and `high`, then 0.

    Lee et al. 2024, "Beta Sampling is All You Need", in the form of diffusers and AUTOMATIC1111.
    """
    places = 1 - torch.linspace(0, 1, steps, dtype=torch.float64)
    return _to_zero(low + beta_quantile(places, alpha) * (high - low))


ALIGN_YOUR_STEPS = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}
"""Levels for ten steps by model family (Sabour et al. 2024, "Align Your Steps", the authors' quick-start guide)."""


def align_your_steps(family: str, steps: int) -> Tensor:
    """The authors' levels, log-linearly interpolated to n + 1 levels of which the last becomes 0.

    At ten steps they are as published, as in diffusers and ComfyUI; AUTOMATIC1111 interpolates to n levels instead.
    """
    levels = torch.tensor(ALIGN_YOUR_STEPS[family], dtype=torch.float64).log()
    places = torch.linspace(0, len(levels) - 1, steps + 1, dtype=torch.float64)
    return _to_zero(_between(levels, places).exp()[:-1])


def _enough(schedule: NoiseSchedule, steps: int) -> None:
    if steps > len(schedule):
        raise FromnoiseError(f"{steps} steps are more than the {len(schedule)} timesteps there are; ask for fewer")


Spacing = Callable[[NoiseSchedule, int, int], Tensor]


def _ends(levels: Callable[[float, float, int], Tensor]) -> Spacing:
    """A schedule that asks only for the lowest and the highest level."""
    return lambda schedule, steps, offset: levels(float(schedule.sigmas[0]), float(schedule.sigmas[-1]), steps)


SPACINGS: dict[str, Spacing] = {
    "leading": leading,
    "linspace": lambda schedule, steps, offset: linspace(schedule, steps),
    "trailing": lambda schedule, steps, offset: trailing(schedule, steps),
    "karras": _ends(karras),
    "exponential": _ends(exponential),
    "polyexponential": _ends(polyexponential),
    "sgm-uniform": lambda schedule, steps, offset: sgm_uniform(schedule, steps),
    "simple": lambda schedule, steps, offset: simple(schedule, steps),
    "normal": lambda schedule, steps, offset: normal(schedule, steps),
    "ddim-uniform": lambda schedule, steps, offset: leading(schedule, steps, 1),
    "beta": _ends(beta),
    "align-your-steps": lambda schedule, steps, offset: align_your_steps("sd15", steps),
    "align-your-steps-xl": lambda schedule, steps, offset: align_your_steps("sdxl", steps),
    "zero-terminal-snr": lambda schedule, steps, offset: zero_terminal_snr(schedule, steps),
    "lcm": lambda schedule, steps, offset: lcm(schedule, steps),
}
"""Schedules by name: (training schedule, steps, `steps_offset` of the scheduler config) to sigmas."""
