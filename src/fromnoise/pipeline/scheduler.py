"""What `scheduler_config.json` says that matters for drawing, and what a family of models is best drawn with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fromnoise.diffusion.samplers import VARIANCE_PRESERVING
from fromnoise.diffusion.schedules import SPACINGS, NoiseSchedule
from fromnoise.request import Request


@dataclass(frozen=True)
class Habits:
    """What a request that does not say gets."""

    steps: int = 25
    guidance: float = 4.0
    sampler: str = "dpmpp-2m"
    schedule: str = "model"

    def fill(self, request: Request) -> Request:
        """The request with its gaps filled."""
        said = {name: getattr(self, name) for name in ("steps", "guidance", "sampler", "schedule")}
        return request.with_(**{name: value for name, value in said.items() if getattr(request, name) is None})


HABITS: Mapping[str, Habits] = {
    "sd1": Habits(guidance=7.0),
    "sd1-inpaint": Habits(guidance=7.0),
    "sd2-base": Habits(guidance=7.0),
    "sd2": Habits(guidance=7.0),
    "sd2-inpaint": Habits(guidance=7.0),
    "sdxl": Habits(guidance=5.0),
    "sd-turbo": Habits(steps=1, guidance=1.0, sampler="euler", schedule="trailing"),
    "sdxl-turbo": Habits(steps=1, guidance=1.0, sampler="euler-a", schedule="trailing"),
    "lcm": Habits(steps=4, guidance=8.0, sampler="lcm", schedule="lcm"),
}
"""By family; the publishers' own advice for turbo and LCM models. Others get Habits()."""


ZERO_SNR = "zero-terminal-snr"
"""The schedule that stretches the training one until it ends in pure noise."""


@dataclass(frozen=True)
class Scheduler:
    """The training schedule, what the network predicts, and how a drawing's timesteps are spaced."""

    schedule: NoiseSchedule
    prediction: str
    spacing: str
    offset: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any], prediction: str | None = None) -> Scheduler:
        """From a parsed config, with diffusers' defaults for what it leaves out; `prediction` overrides it."""
        schedule = _trained(values)
        return cls(
            schedule=schedule.zero_terminal() if values.get("rescale_betas_zero_snr") else schedule,
            prediction=prediction or values.get("prediction_type", "epsilon"),
            spacing=values.get("timestep_spacing", "leading"),
            offset=values.get("steps_offset", 0),
        )

    def sigmas(self, request: Request) -> Tensor:
        """The noise levels of the request's schedule, "model" being the config's own."""
        assert request.steps is not None
        return SPACINGS[self._spacing(request)](self.schedule, request.steps, self.offset)

    def first_scale(self, request: Request, sigma: float) -> float:
        """What the first unit noise is multiplied by: diffusers' `init_noise_sigma`, in sigma space."""
        if self._spacing(request) == "leading" or request.sampler in VARIANCE_PRESERVING:
            return (sigma**2 + 1) ** 0.5
        return sigma

    def training(self, request: Request) -> NoiseSchedule:
        """The schedule that the network's timesteps are looked up in."""
        return self.schedule.zero_terminal() if request.schedule == ZERO_SNR else self.schedule

    def _spacing(self, request: Request) -> str:
        return self.spacing if request.schedule in (None, "model") else request.schedule


def _trained(values: Mapping[str, Any]) -> NoiseSchedule:
    if values.get("trained_betas") is not None:
        return NoiseSchedule.from_trained_betas(values["trained_betas"])
    return NoiseSchedule.from_betas(
        values.get("beta_schedule", "scaled_linear"),
        values.get("beta_start", 0.00085),
        values.get("beta_end", 0.012),
        values.get("num_train_timesteps", 1000),
    )
