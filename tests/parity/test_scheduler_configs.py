"""Noise levels by a `scheduler_config.json` against the scheduler that diffusers makes of it."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch

from fromnoise.diffusion.scheduler_config import BETWEEN_SPACED, BETWEEN_TRAINED, DEFAULTS, STABLE_DIFFUSION, completed
from fromnoise.pipeline.scheduler import Scheduler
from fromnoise.request import Request

FLAGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
NO_SPACING = "DPMSolverSinglestepScheduler"
"""Its constructor has no `timestep_spacing`."""


def ours(config: dict[str, Any], steps: int) -> torch.Tensor:
    return Scheduler.from_json(config).sigmas(Request(steps=steps, sampler="euler", schedule="model")).float()


def theirs(config: dict[str, Any], steps: int) -> torch.Tensor:
    """Each level once: solvers of second order visit some twice."""
    scheduler = getattr(diffusers, config["_class_name"])(**{k: v for k, v in config.items() if k[0] != "_"})
    scheduler.set_timesteps(steps)
    return torch.unique_consecutive(scheduler.sigmas)


@pytest.mark.parametrize("name", [*DEFAULTS, "LCMScheduler", "TCDScheduler"])
def test_what_is_left_out_is_what_the_class_has(name: str) -> None:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    stated = {field: parameters[field].default for field in STABLE_DIFFUSION if field in parameters}
    values = completed({"_class_name": name, "beta_start": None})
    assert {field: values[field] for field in stated} == stated
    assert set(STABLE_DIFFUSION) - set(stated) <= (
        {"timestep_spacing", "steps_offset"} if name == NO_SPACING else set()
    )


@pytest.mark.parametrize("name", [each for each in DEFAULTS if each in BETWEEN_SPACED | BETWEEN_TRAINED])
def test_every_class_with_curves_is_known(name: str) -> None:
    assert set(FLAGS) <= set(inspect.signature(getattr(diffusers, name).__init__).parameters)


@pytest.mark.parametrize("name", sorted({*DEFAULTS} - BETWEEN_SPACED - BETWEEN_TRAINED))
def test_every_other_class_has_none(name: str) -> None:
    assert not {*FLAGS} & set(inspect.signature(getattr(diffusers, name).__init__).parameters)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"])
def test_the_levels_of_a_bare_config(name: str) -> None:
    config = {"_class_name": name}
    torch.testing.assert_close(ours(config, 9), theirs(config, 9), rtol=1e-4, atol=0)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", sorted(BETWEEN_SPACED | BETWEEN_TRAINED - {NO_SPACING}))
def test_curves_are_those_of_diffusers(name: str, spacing: str, flag: str) -> None:
    config = {"_class_name": name, "timestep_spacing": spacing, "steps_offset": 1, flag: True}
    # DEIS and SA solver stay at the lowest level in place of the last step to 0.
    torch.testing.assert_close(ours(config, 7)[:7], theirs(config, 7)[:7], rtol=1e-4, atol=0)
