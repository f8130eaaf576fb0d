"""What is trained here draws the same picture in diffusers, for SD 1.5 and SDXL layouts alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fromnoise.pipeline import load
from fromnoise.request import Lora, Request
from fromnoise.training.tuning import finetune, inversion, lora

pytestmark = pytest.mark.slow

KINDS = {"sd1": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline}
QUICK: dict[str, Any] = {"steps": 2, "batch": 1, "check_every": 1, "sample_every": 0, "warmup": 1, "patience": 99}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, colour in enumerate(["red", "green"]):
        Image.new("RGB", (64, 64), colour).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("a red apple")
    return folder


def theirs(pipe: Any, prompt: str) -> Image.Image:
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
    generator = torch.Generator().manual_seed(5)
    return pipe(
        prompt,
        negative_prompt="blurry",
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=generator,
    ).images[0]


def ours(folder: Path, prompt: str, **fields: Any) -> Image.Image:
    euler = {"sampler": "euler", "schedule": "linspace", "negative": "blurry", "steps": 3, "guidance": 4.0}
    return load(folder)(Request(prompt, seed=5, **euler, **fields))[0].image


def difference(one: Image.Image, other: Image.Image) -> int:
    mine, his = (np.asarray(each).astype(int) for each in (one, other))
    return int(np.abs(mine - his).max())


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_a_lora(folders: Callable[[str], Path], tmp_path: Path, pictures: Path, family: str, layout: str) -> None:
    base, file = folders(family), tmp_path / "x.safetensors"
    recipe = lora.LoraRecipe(model=str(base), rank=2, alpha=3.0, layout=layout, rate=0.05, text_encoder=True, **QUICK)
    lora.train([pictures], tmp_path / "run", recipe, file)
    drawn = ours(base, "a red apple", loras=(Lora(str(file)),))
    pipe = KINDS[family].from_pretrained(base)
    pipe.load_lora_weights(str(file))
    assert difference(drawn, ours(base, "a red apple")) > 3
    assert difference(drawn, theirs(pipe, "a red apple")) <= 1


@pytest.mark.parametrize("family", KINDS)
def test_an_inversion(folders: Callable[[str], Path], tmp_path: Path, pictures: Path, family: str) -> None:
    base, file = folders(family), tmp_path / "x.safetensors"
    recipe = inversion.InversionRecipe(model=str(base), token="<x>", init="cat", vectors=2, **QUICK)
    inversion.train([pictures], tmp_path / "run", recipe, file)
    drawn = ours(base, "a <x>", embeddings=(str(file),)) if family == "sd1" else None
    pipe = KINDS[family].from_pretrained(base)
    if family == "sd1":
        pipe.load_textual_inversion(str(file))
        assert difference(drawn, theirs(pipe, "a <x>")) <= 1
    else:
        assert {key: len(each) for key, each in load_file(file).items()} == {"clip_l": 2, "clip_g": 2}


@pytest.mark.parametrize("family", KINDS)
def test_a_model(folders: Callable[[str], Path], tmp_path: Path, pictures: Path, family: str) -> None:
    recipe = finetune.FinetuneRecipe(model=str(folders(family)), rate=1e-2, **{**QUICK, "average": 0})
    finetune.train([pictures], tmp_path / "run", recipe, tmp_path / "model")
    drawn = ours(tmp_path / "model", "a red apple")
    assert difference(drawn, theirs(KINDS[family].from_pretrained(tmp_path / "model"), "a red apple")) <= 1
