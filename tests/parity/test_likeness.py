"""How many steps image to image runs, against diffusers' own pipeline."""

import pytest

from fromnoise.runtime.likeness import LIKENESSES, Steps


@pytest.mark.parametrize("steps", [1, 4, 25, 30, 50, 999])
@pytest.mark.parametrize("strength", [0.0, 0.01, 0.29, 0.3, 0.58, 0.6, 0.8, 1.0])
def test_diffusers_rounds_down(steps: int, strength: float):
    pipelines = pytest.importorskip("diffusers")
    scheduler = pipelines.EulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    holder = type("Pipeline", (), {"scheduler": scheduler})()
    get_timesteps = pipelines.StableDiffusionImg2ImgPipeline.get_timesteps
    _, theirs = get_timesteps(holder, steps, strength, "cpu")
    assert LIKENESSES["diffusers"].steps(steps, strength) == Steps(steps, theirs)
