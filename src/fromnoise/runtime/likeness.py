"""What other tools do between a picture's settings and its first step, so that their seeds give their pictures here.

Facts only, each with the file that shows it; nothing here draws. Samplers and schedules go by the AUTOMATIC1111 web
UI's spelling, as in `request.SAMPLERS` and `request.SCHEDULES`. Sigmas rise in a training table and fall in a schedule.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple


class Steps(NamedTuple):
    """The schedule is made for `total` steps, and the last `run` of them are run."""

    total: int
    run: int


Levels = list[float]


@dataclass(frozen=True)
class Likeness:
    """One tool's habits.

    `noise` is "cpu", "philox" or "comfyui", as in `runtime.seeds` and `runtime.philox`; `weighting` is a Request's.
    `steps(steps, strength)` is image to image's rounding; `exact_steps` the tool's way to run all the steps asked for,
    None if it has none. `first_scale(sampler, sigma, highest)` is what unit noise is multiplied by when there is no
    picture to start from, None where the scheduler config decides; with a picture the start is
    `latents + picture_scale(sigma, highest) * noise`. `automatic` names the schedule that a sampler gets unless told
    otherwise, `default` that of all other samplers (None: the scheduler config's). `discards` are the samplers whose
    schedule is made one step longer and loses its last level before 0. `differs` says where a schedule of the same
    name is another than ours, `unlike` which samplers can't be followed all the way, and why. `time(table, sigma)` is
    the timestep that the network is told at a level, None where the schedule's own is. `eta` is that of ancestral and
    SDE samplers, `ddim_eta` DDIM's.
    """

    noise: str
    weighting: str
    steps: Callable[[int, float], Steps]
    exact_steps: Callable[[int, float], Steps] | None
    first_scale: Callable[[str, float, float], float] | None
    picture_scale: Callable[[float, float], float]
    default: str | None
    automatic: Mapping[str, str]
    discards: frozenset[str]
    differs: Mapping[str, str]
    unlike: Mapping[str, str]
    time: Callable[[Sequence[float], float], float] | None
    sources: tuple[str, ...]
    eta: float = 1.0
    ddim_eta: float = 0.0


def a1111_steps(steps: int, strength: float) -> Steps:
    """One more than the share asked for, floor(n * min(s, 0.999)) + 1, so that strength 0 still runs one."""
    return Steps(steps, int(min(strength, 0.999) * steps) + 1)


def a1111_exact_steps(steps: int, strength: float) -> Steps:
    """With "do exactly the amount of steps the slider specifies": a longer schedule, of which n steps are run."""
    return Steps(int(steps / min(strength, 0.999)), steps) if strength > 0 else Steps(0, 0)


def comfyui_steps(steps: int, strength: float) -> Steps:
    """All steps asked for are run, the last of int(n / denoise); all of them from 0.9999 up, none at 0."""
    if strength > 0.9999:
        return Steps(steps, steps)
    return Steps(int(steps / strength), steps) if strength > 0 else Steps(0, 0)


def diffusers_steps(steps: int, strength: float) -> Steps:
    """int(n * s), as floating point gives it."""
    return Steps(steps, min(int(steps * strength), steps))


def variance_preserving(sigma: float) -> float:
    """sqrt(1 + sigma^2): unit noise at unit variance, seen at level sigma."""
    return math.sqrt(1 + sigma**2)


def log_time(table: Sequence[float], sigma: float) -> float:
    """The timestep at a level, linear in log sigma between two and held to the table (k-diffusion's `sigma_to_t`)."""
    low = min(max(bisect_right(table, sigma) - 1, 0), len(table) - 2)
    below, above = math.log(table[low]), math.log(table[low + 1])
    return low + min(max((math.log(sigma) - below) / (above - below), 0.0), 1.0)


def nearest_time(table: Sequence[float], sigma: float) -> float:
    """The whole timestep whose level is nearest in log sigma (ComfyUI's `ModelSamplingDiscrete.timestep`)."""
    low = math.floor(log_time(table, sigma))
    near = (low, min(low + 1, len(table) - 1))
    return float(min(near, key=lambda time: abs(math.log(sigma) - math.log(table[time]))))


def ddim_uniform(table: Sequence[float], steps: int) -> Levels:
    """Every (T // n)-th level from the second up; where n does not divide T, that is more than n steps."""
    return [*reversed(table[1 :: max(len(table) // steps, 1)]), 0.0]


def ddim_times(steps: int, count: int = 1000) -> list[int]:
    """The web UI's timesteps for DDIM, PLMS and UniPC, falling; the network is never asked at the last of them.

    The steps end at timestep 1, not at 0: a little noise stays in the picture (`sd_samplers_timesteps_impl.py`).
    """
    return [min(time + 1, count - 1) for time in range(0, count, count // steps)][::-1]


def without_last_level(levels: Sequence[float]) -> Levels:
    """A schedule made for one step more than asked, its last level above 0 dropped, for samplers in `discards`."""
    return [*levels[:-2], levels[-1]]


def _a1111_first(sampler: str, sigma: float, highest: float) -> float:
    return variance_preserving(sigma) if sampler in ON_TIMESTEPS else sigma


def _as_it_is(sigma: float, highest: float) -> float:
    return sigma


def _comfyui_picture(sigma: float, highest: float) -> float:
    at_the_top = math.isclose(sigma, highest, rel_tol=1e-5) or sigma > highest
    return variance_preserving(sigma) if at_the_top else sigma


_TREE = "its Brownian path is torchsde's, whose nodes are drawn in another order than ours"
_SHORT = "asks the network once less and ends at timestep 1, not 0: ddim_times"

SDE = ("DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")
"""Samplers that follow a Brownian path."""

ON_TIMESTEPS = frozenset({"DDIM", "DDIM CFG++", "PLMS", "UniPC"})
"""The web UI's samplers that go by timesteps, not sigmas: they start from unit noise at unit variance."""

LIKENESSES: Mapping[str, Likeness] = MappingProxyType(
    {
        "a1111": Likeness(
            noise="philox",
            weighting="a1111",
            steps=a1111_steps,
            exact_steps=a1111_exact_steps,
            first_scale=_a1111_first,
            picture_scale=_as_it_is,
            default="Normal",
            automatic=MappingProxyType(
                {
                    "DPM++ 2M": "Karras",
                    "DPM++ SDE": "Karras",
                    "DPM++ 2M SDE": "Exponential",
                    "DPM++ 2M SDE Heun": "Exponential",
                    "DPM++ 2S a": "Karras",
                    "DPM++ 3M SDE": "Exponential",
                    "DPM2": "Karras",
                    "DPM2 a": "Karras",
                    "Restart": "Karras",
                }
            ),
            discards=frozenset({"DPM++ 3M SDE", "DPM2", "DPM2 a"}),
            differs=MappingProxyType(
                {
                    "DDIM": "a step longer where n does not divide 1000: ddim_uniform",
                    "Align Your Steps": "interpolated to n levels, not to n + 1 of which the last becomes 0",
                }
            ),
            unlike=MappingProxyType({**dict.fromkeys(SDE, _TREE), **dict.fromkeys(("DDIM", "DDIM CFG++"), _SHORT)}),
            time=log_time,
            sources=(
                "modules/rng.py",
                "modules/rng_philox.py",
                "modules/sd_samplers_common.py: setup_img2img_steps",
                "modules/sd_samplers_kdiffusion.py: samplers_k_diffusion, get_sigmas, sample",
                "modules/sd_samplers_timesteps.py: get_timesteps",
                "modules/sd_schedulers.py",
                "modules/shared_options.py: eta_ancestral, eta_ddim",
                "k_diffusion/external.py: DiscreteSchedule",
            ),
        ),
        "comfyui": Likeness(
            noise="comfyui",
            weighting="comfyui",
            steps=comfyui_steps,
            exact_steps=None,
            first_scale=lambda sampler, sigma, highest: _comfyui_picture(sigma, highest),
            picture_scale=_comfyui_picture,
            default="Simple",
            automatic=MappingProxyType({}),
            discards=frozenset({"DPM2", "DPM2 a", "UniPC"}),
            differs=MappingProxyType(
                {
                    "DDIM": "a step longer where n does not divide 1000: ddim_uniform",
                    "Beta": "quantiles of the timestep, whole and each once, the end left out; ours are of sigma",
                }
            ),
            unlike=MappingProxyType(dict.fromkeys(SDE, _TREE)),
            time=nearest_time,
            sources=(
                "comfy/sample.py: prepare_noise",
                "comfy/samplers.py: KSampler, KSAMPLER, SCHEDULER_HANDLERS",
                "comfy/model_sampling.py: ModelSamplingDiscrete, EPS.noise_scaling",
                "comfy/k_diffusion/sampling.py: default_noise_sampler",
            ),
        ),
        "diffusers": Likeness(
            noise="cpu",
            weighting="none",
            steps=diffusers_steps,
            exact_steps=None,
            first_scale=None,
            picture_scale=_as_it_is,
            default=None,
            automatic=MappingProxyType({}),
            discards=frozenset(),
            differs=MappingProxyType({}),
            unlike=MappingProxyType(dict.fromkeys(SDE, _TREE)),
            time=None,
            sources=(
                "pipelines/stable_diffusion/pipeline_stable_diffusion_img2img.py: get_timesteps",
                "schedulers/*.py: set_timesteps, init_noise_sigma",
            ),
        ),
    }
)
"""By the names of a Request's `like`."""
