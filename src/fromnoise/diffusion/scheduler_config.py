"""What the fields of a `scheduler_config.json` are where it leaves them out: diffusers' defaults, which go by class."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Fields = Mapping[str, Any]

STABLE_DIFFUSION: Fields = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 0,
}
"""Those of LCM and TCD, and of a config that names no class that is known."""

_HO: Fields = {**STABLE_DIFFUSION, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
"""Ho et al. 2020, section 4."""

_EVEN: Fields = {**_HO, "timestep_spacing": "linspace"}
_K_DIFFUSION: Fields = {**STABLE_DIFFUSION, "beta_schedule": "linear", "timestep_spacing": "linspace"}

DEFAULTS: Mapping[str, Fields] = MappingProxyType(
    {
        **dict.fromkeys(("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler"), _HO),
        "PNDMScheduler": _HO,
        "EulerDiscreteScheduler": _EVEN,
        "EulerAncestralDiscreteScheduler": _EVEN,
        "LMSDiscreteScheduler": _EVEN,
        "DPMSolverMultistepScheduler": _EVEN,
        "DPMSolverSinglestepScheduler": _EVEN,
        "DEISMultistepScheduler": _EVEN,
        "UniPCMultistepScheduler": _EVEN,
        "SASolverScheduler": _EVEN,
        "HeunDiscreteScheduler": _K_DIFFUSION,
        "KDPM2DiscreteScheduler": _K_DIFFUSION,
        "KDPM2AncestralDiscreteScheduler": _K_DIFFUSION,
        "DPMSolverSDEScheduler": _K_DIFFUSION,
    }
)
"""By `_class_name`, as the classes' constructors have them (diffusers, schedulers/*.py)."""

CURVES: Mapping[str, str] = MappingProxyType(
    {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta"}
)
"""Fields that choose other noise levels than those of the timesteps, with our names for these schedules."""

BETWEEN_SPACED = frozenset(
    {
        "EulerDiscreteScheduler",
        "LMSDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverSDEScheduler",
    }
)
"""Classes that draw such a curve between the first and the last of the spaced levels."""

BETWEEN_TRAINED = frozenset(
    {
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "DEISMultistepScheduler",
        "UniPCMultistepScheduler",
        "SASolverScheduler",
    }
)
"""Classes that draw it between the highest and the lowest training level; others have no such fields."""


def completed(config: Fields) -> Fields:
    """The config with its class's defaults for what is left out or null."""
    said = {name: value for name, value in config.items() if value is not None}
    return {**DEFAULTS.get(str(config.get("_class_name")), STABLE_DIFFUSION), **said}


def curve_of(config: Fields) -> str | None:
    """The schedule whose curve the noise levels follow, a key of SPACINGS; None where they are the timesteps' own."""
    if config.get("_class_name") not in BETWEEN_SPACED | BETWEEN_TRAINED:
        return None
    return next((name for field, name in CURVES.items() if config.get(field)), None)


def overlooked(config: Fields) -> list[str]:
    """Fields of a config that change the noise levels in diffusers, and that nothing here follows."""
    usual: Fields = {
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "final_sigmas_type": "zero",
        "interpolation_type": "linear",
    }
    return [f"{name} {config[name]}" for name, value in usual.items() if config.get(name) not in (None, value)]
