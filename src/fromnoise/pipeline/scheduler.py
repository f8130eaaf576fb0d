"""What `scheduler_config.json` says that matters for drawing, and what a family of models is best drawn with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fromnoise.diffusion.samplers import TWO_DENOISERS, VARIANCE_PRESERVING
from fromnoise.diffusion.scheduler_config import BETWEEN_SPACED, completed, curve_of, overlooked
from fromnoise.diffusion.schedules import SPACINGS, NoiseSchedule
from fromnoise.pipeline.quality import chosen
from fromnoise.request import EMBEDDED_STEPS, SAMPLERS, SCHEDULES, USUAL_STEPS, Request
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.likeness import (
    LIKENESSES,
    Likeness,
    Steps,
    a1111_exact_steps,
    ddim_uniform,
    without_last_level,
)
from fromnoise.runtime.log import note


@dataclass(frozen=True)
class Habits:
    """What a request that does not say gets; `aligned` is the schedule for a quality that takes few steps."""

    steps: int = USUAL_STEPS
    guidance: float = 4.0
    sampler: str = "dpmpp-2m"
    schedule: str = "model"
    aligned: str = "model"

    def fill(self, request: Request) -> Request:
        """The request with its gaps filled: by its quality, then the tool's way where it is to be like a tool."""
        request = chosen(request, self.steps, self.aligned)
        own = {name: getattr(self, name) for name in ("steps", "guidance", "sampler", "schedule")}
        said = {**own, **tool_habits(request.like, request.sampler or self.sampler)}
        if request.sampler in TWO_DENOISERS:
            said["guidance"] = CFG_PP
        return request.with_(**{name: value for name, value in said.items() if getattr(request, name) is None})


CFG_PP = 0.6
"""The guidance of CFG++ samplers, whose scale runs from 0 to 1 (Chung et al. 2024, section 4)."""


def tool_habits(like: str | None, sampler: str) -> dict[str, str]:
    """What a tool does with this sampler unless told otherwise; without a tool only the web UI's weighting."""
    if like is None:
        return {"weighting": "a1111"}
    tool = LIKENESSES[like]
    label = tool.automatic.get(SAMPLERS[sampler], tool.default)
    named = [name for name, said in SCHEDULES.items() if said == label]
    return {"weighting": tool.weighting, **({"schedule": named[0]} if named else {})}


HABITS: Mapping[str, Habits] = {
    "sd1": Habits(guidance=7.0, aligned="align-your-steps"),
    "sd1-inpaint": Habits(guidance=7.0, aligned="align-your-steps"),
    "sd2-base": Habits(guidance=7.0, aligned="align-your-steps"),
    "sd2": Habits(guidance=7.0, aligned="align-your-steps"),
    "sd2-inpaint": Habits(guidance=7.0, aligned="align-your-steps"),
    "sdxl": Habits(guidance=5.0, aligned="align-your-steps-xl"),
    "sd-turbo": Habits(steps=1, guidance=1.0, sampler="euler", schedule="trailing"),
    "sdxl-turbo": Habits(steps=1, guidance=1.0, sampler="euler-a", schedule="trailing"),
    "custom": Habits(steps=EMBEDDED_STEPS),
    "lcm": Habits(steps=4, guidance=8.0, sampler="lcm", schedule="lcm"),
}
"""By family; the publishers' own advice for turbo and LCM models. Others get Habits().

Custom models are the embedded one and what is made of it: twelve of its steps are as good as 25 (docs/speed.md).
"""


PUBLISHED_SPACINGS = ("leading", "linspace", "trailing")
"""What a scheduler config's `timestep_spacing` may be."""

ZERO_SNR = "zero-terminal-snr"
"""The schedule that stretches the training one until it ends in pure noise."""


@dataclass(frozen=True)
class Scheduler:
    """The training schedule, what the network predicts, and how a drawing's timesteps are spaced."""

    schedule: NoiseSchedule
    prediction: str
    spacing: str
    offset: int
    curve: str | None = None
    """The schedule, a key of SPACINGS, whose curve the levels follow instead of the timesteps."""
    spaced_ends: bool = True
    """The curve runs between the ends of the spaced levels, not of the training ones."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any], prediction: str | None = None) -> Scheduler:
        """From a parsed config, with diffusers' defaults for what it leaves out; `prediction` overrides it.

        FromnoiseError for values that no schedule has.
        """
        values = completed(values)
        if fields := overlooked(values):
            note(f"the model's scheduler config says {', '.join(fields)}, which is not followed here")
        schedule = _trained(values)
        return cls(
            schedule=schedule.zero_terminal() if values.get("rescale_betas_zero_snr") else schedule,
            prediction=prediction or values["prediction_type"],
            spacing=_spacing(values["timestep_spacing"]),
            offset=_offset(values["steps_offset"]),
            curve=curve_of(values),
            spaced_ends=values.get("_class_name") in BETWEEN_SPACED,
        )

    def sigmas(self, request: Request) -> Tensor:
        """The noise levels that the request visits: all, or the last ones when it starts from a picture."""
        total, run = self.steps(request)
        if run == 0:
            return torch.zeros(1, dtype=torch.float64)
        levels = self._levels(request, total)
        return levels[max(len(levels) - 1 - run, 0) :] if request.init is not None else levels

    def second_sigmas(self, request: Request) -> Tensor:
        """The noise levels of the second pass (`hires`), whose steps are all run, of a schedule that is longer.

        That is the web UI's rule (`setup_img2img_steps` where a number of steps is given); no schedule is longer than
        the training one.
        """
        assert request.hires is not None
        exact, strength = likeness(request).exact_steps or a1111_exact_steps, request.hires.strength
        total, run = self._within(Steps(*exact(self.second_steps(request), strength)), strength)
        if run == 0:
            return torch.zeros(1, dtype=torch.float64)
        levels = self._levels(request, total)
        return levels[max(len(levels) - 1 - run, 0) :]

    def second_steps(self, request: Request) -> int:
        """How many steps the second pass runs: those asked for, else as image to image would run, and at least one.

        The web UI runs as many as in the first pass there.
        """
        assert request.hires is not None and request.steps is not None
        if request.hires.steps is not None:
            return request.hires.steps
        if request.like == "a1111":
            return request.steps
        return max(likeness(request).steps(request.steps, request.hires.strength).run, 1)

    def steps(self, request: Request) -> Steps:
        """How many steps the schedule has and how many are run, by the tool's rounding."""
        assert request.steps is not None
        if request.init is None:
            return Steps(request.steps, request.steps)
        return self._within(likeness(request).steps(request.steps, request.strength), request.strength)

    def _within(self, steps: Steps, strength: float) -> Steps:
        """No schedule is longer than the training one."""
        longest = len(self.schedule.sigmas)
        return steps if steps.total <= longest else Steps(longest, min(steps.run, max(int(longest * strength), 1)))

    def first_scale(self, request: Request, sigma: float) -> float:
        """What the first unit noise is multiplied by: diffusers' `init_noise_sigma`, in sigma space, or the tool's."""
        tool = likeness(request)
        if tool.first_scale is not None:
            return tool.first_scale(SAMPLERS[request.sampler or ""], sigma, float(self.schedule.sigmas[-1]))
        if self._spacing(request) == "leading" or request.sampler in VARIANCE_PRESERVING:
            return (sigma**2 + 1) ** 0.5
        return sigma

    def training(self, request: Request) -> NoiseSchedule:
        """The schedule that the network's timesteps are looked up in."""
        schedule = self.schedule.zero_terminal() if request.schedule == ZERO_SNR else self.schedule
        time = likeness(request).time
        return schedule if time is None else ToolSchedule(schedule.sigmas, time)

    def _levels(self, request: Request, steps: int) -> Tensor:
        tool, name = likeness(request), self._spacing(request)
        discards = SAMPLERS[request.sampler or ""] in tool.discards
        if name == "ddim-uniform" and SCHEDULES[name] in tool.differs:
            levels = torch.tensor(ddim_uniform(self.schedule.sigmas.tolist(), steps), dtype=torch.float64)
        else:
            # No schedule is longer than the training one: its last level is dropped with nothing to replace it.
            levels = self._made(request, steps + (discards and steps != len(self.schedule)))
        return torch.tensor(without_last_level(levels.tolist()), dtype=torch.float64) if discards else levels

    def _made(self, request: Request, steps: int) -> Tensor:
        """The levels of the schedule asked for; the model's own may follow a curve between two of its levels."""
        levels = SPACINGS[self._spacing(request)](self.schedule, steps, self.offset)
        if self.curve is None or request.schedule not in (None, "model"):
            return levels
        ends = NoiseSchedule(levels[:-1].flip(0)) if self.spaced_ends else self.schedule
        return SPACINGS[self.curve](ends, steps, self.offset)

    def _spacing(self, request: Request) -> str:
        return self.spacing if request.schedule in (None, "model") else request.schedule


@dataclass(frozen=True)
class ToolSchedule(NoiseSchedule):
    """A training schedule whose timesteps are looked up as a tool does it."""

    look_up: Callable[[Sequence[float], float], float]

    def time(self, sigma: Tensor) -> Tensor:
        """Timesteps (float32) at noise levels."""
        table = self.sigmas.tolist()
        return torch.tensor([self.look_up(table, level) for level in sigma.tolist()], device=sigma.device)


def likeness(request: Request) -> Likeness:
    """The habits of the tool that the request is to be like; diffusers' without one."""
    return LIKENESSES[request.like or "diffusers"]


def _trained(values: Mapping[str, Any]) -> NoiseSchedule:
    if "trained_betas" in values:
        return NoiseSchedule.from_trained_betas(values["trained_betas"])
    names = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps")
    return NoiseSchedule.from_betas(*(values[name] for name in names))


def _spacing(name: Any) -> str:
    if name not in PUBLISHED_SPACINGS:
        known = ", ".join(PUBLISHED_SPACINGS)
        raise FromnoiseError(f"the scheduler's timestep_spacing must be one of {known}, not {name!r}")
    return name


def _offset(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise FromnoiseError(f"the scheduler's steps_offset must be 0 or more, not {value!r}")
    return value
