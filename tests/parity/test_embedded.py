"""The embedded model is an ordinary folder: diffusers loads it unchanged and draws what fromnoise draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from fromnoise.pipeline import load
from fromnoise.runtime.paths import EMBEDDED_MODEL

PROMPT, NEGATIVE = "a red apple, noto style", "a blue heart"


@pytest.fixture(scope="module")
def theirs() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED_MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_the_same_picture(theirs: StableDiffusionPipeline, spacing: str) -> None:
    theirs.scheduler = EulerDiscreteScheduler.from_config(theirs.scheduler.config, timestep_spacing=spacing)
    reference = theirs(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=5,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    ours = load(dtype="float32")(PROMPT, negative=NEGATIVE, seed=0, steps=5, sampler="euler", schedule=spacing)[0].image
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(reference).astype(int))
    assert difference.max() <= 1
    assert np.asarray(ours).std() > 5
