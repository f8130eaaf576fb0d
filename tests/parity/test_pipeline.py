"""The same folder, seed and settings in diffusers and here: the same picture within 1/255 per pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from fromnoise.images.convert import to_images
from fromnoise.images.opening import to_png
from fromnoise.pipeline import load
from tests.tiny import write_model

PROMPT, NEGATIVE = "a red apple, noto style", "blurry"


def largest(ours: Image.Image, theirs: Image.Image) -> int:
    return int(np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)).max())


def generators(seed: int, count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + index) for index in range(count)]


CASES = [
    ("euler", EulerDiscreteScheduler, "leading"),
    ("euler", EulerDiscreteScheduler, "linspace"),
    ("euler", EulerDiscreteScheduler, "trailing"),
    ("euler-a", EulerAncestralDiscreteScheduler, "trailing"),
    ("heun", HeunDiscreteScheduler, "leading"),
    ("ddim", DDIMScheduler, "leading"),
    ("ddim", DDIMScheduler, "trailing"),
    ("dpmpp-2m", DPMSolverMultistepScheduler, "trailing"),
]


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
@pytest.mark.parametrize(("sampler", "kind", "spacing"), CASES)
def test_text_to_image(tmp_path: Path, sampler: str, kind: Any, spacing: str, prediction: str) -> None:
    folder = write_model(tmp_path, timestep_spacing=spacing, prediction_type=prediction)
    theirs = StableDiffusionPipeline.from_pretrained(folder)
    theirs.scheduler = kind.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 6, "guidance_scale": 3.0, "negative_prompt": NEGATIVE}
    reference = [theirs(PROMPT, generator=each, height=16, width=24, **settings).images[0] for each in generators(5, 2)]
    ours = load(folder)(
        PROMPT, negative=NEGATIVE, seed=5, steps=6, guidance=3.0, sampler=sampler, size=(24, 16), count=2
    )
    assert np.asarray(reference[0]).std() > 5, "a flat picture proves nothing"
    for mine, other in zip(ours, reference, strict=True):
        assert largest(mine.image, other) <= 1


@pytest.mark.parametrize("strength", [0.3, 0.57, 1.0])
def test_image_to_image(tiny_model: Path, strength: float) -> None:
    start = to_images(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1)[0]
    theirs = StableDiffusionImg2ImgPipeline.from_pretrained(tiny_model)
    theirs.set_progress_bar_config(disable=True)
    reference = theirs(
        PROMPT,
        image=start,
        strength=strength,
        num_inference_steps=7,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(9),
    ).images[0]
    ours = load(tiny_model)(
        PROMPT, init=to_png(start), strength=strength, seed=9, steps=7, guidance=3.0, sampler="euler"
    )[0]
    assert largest(ours.image, reference) <= 1
