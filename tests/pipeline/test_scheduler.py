from __future__ import annotations

import logging
from typing import Any

import pytest

from fromnoise.pipeline.scheduler import Scheduler
from fromnoise.request import Request
from fromnoise.runtime.errors import FromnoiseError

EULER = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("timestep_spacing", "sgm_uniform"), ("timestep_spacing", 3), ("steps_offset", -5), ("steps_offset", 0.5)],
)
def test_values_that_no_schedule_has_are_named(field: str, value: Any) -> None:
    with pytest.raises(FromnoiseError, match=f"{field} must be"):
        Scheduler.from_json({**EULER, field: value})


def test_null_is_absent() -> None:
    nulls = dict.fromkeys(("timestep_spacing", "steps_offset", "trained_betas", "beta_start", "prediction_type"))
    one, other = Scheduler.from_json(EULER), Scheduler.from_json({**EULER, **nulls})
    request = Request(steps=5, schedule="model", sampler="euler")
    assert one.sigmas(request).tolist() == other.sigmas(request).tolist()
    assert (one.prediction, one.spacing, one.offset) == (other.prediction, other.spacing, other.offset)


def test_what_is_not_followed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Scheduler.from_json({"_class_name": "DPMSolverMultistepScheduler", "use_lu_lambdas": True})
    assert "use_lu_lambdas True" in caplog.text
    caplog.clear()
    Scheduler.from_json({**EULER, "final_sigmas_type": "zero", "interpolation_type": "linear"})
    assert not caplog.text


@pytest.mark.parametrize(
    ("fields", "run"),
    [
        ({"steps": 1000, "sampler": "dpm2", "like": "a1111"}, 999),
        ({"steps": 25, "sampler": "unipc", "like": "comfyui", "init": b"png", "strength": 0.02}, 20),
    ],
)
def test_a_schedule_made_a_step_longer_is_no_longer_than_the_training_one(fields: dict[str, Any], run: int) -> None:
    levels = Scheduler.from_json(EULER).sigmas(Request(schedule="simple", **fields))
    assert len(levels) - 1 == run
    assert bool((levels.diff() < 0).all())
