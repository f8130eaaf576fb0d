"""A few-step LoRA made here draws the same picture in diffusers, with the scheduler that its file names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.pipeline import load
from fromnoise.training.tuning import distill, lora
from tests.tiny import randomise

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SD 1.5, whose network predicts the noise, with random factors in its file."""
    folder = Path(shutil.copytree(folders("sd1"), tmp_path_factory.mktemp("fast") / "sd1"))
    recipe = distill.DistillRecipe(model=str(folder), rank=2)
    pipeline = load(folder)
    factors = randomise(lora.new_factors(pipeline, recipe), 7)
    settings = distill.teaching(pipeline, recipe)
    distill.outcome_of(factors, pipeline, recipe, settings).write(folder / "fast.safetensors")
    return folder


def drawn(pipe: diffusers.StableDiffusionPipeline) -> Image.Image:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    return pipe("a red apple", num_inference_steps=4, guidance_scale=1.0, generator=generator).images[0]


def difference(one: Image.Image, other: Image.Image) -> int:
    mine, his = (np.asarray(each).astype(int) for each in (one, other))
    return int(np.abs(mine - his).max())


def test_a_fast_picture(base: Path) -> None:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(base)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    ours = load(base)("a red apple", seed=5, fast=True)[0].image
    assert difference(ours, drawn(pipe)) > 3
    pipe.load_lora_weights(str(base / "fast.safetensors"))
    assert difference(ours, drawn(pipe)) <= 1


def test_it_works_with_the_lcm_scheduler_too(base: Path) -> None:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(base)
    pipe.load_lora_weights(str(base / "fast.safetensors"))
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    ours = load(base)("a red apple", seed=5, fast=True, sampler="lcm", schedule="lcm")[0].image
    assert difference(ours, drawn(pipe)) <= 1
