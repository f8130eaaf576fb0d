"""`train distill` at toy size, and `--fast`, which draws with what it made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from fromnoise.images.metadata import read_settings
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line

QUICK = ("--steps", 2, "--batch", 2, "--sample-every", 0, "--trajectories", 4, "--teacher-steps", 4)


@pytest.fixture
def model(tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, "tiny"))


def test_distill_then_draw_fast(run: Run, model: Path) -> None:
    Path("prompts.txt").write_text("a cat\na dog\n")
    asked = ("train", "distill", "prompts.txt", "--model", model, *QUICK, "--rank", 2)
    drawn = ("a cat", "--model", model, "--fast", "--seed", 3)
    assert is_one_line(run(*drawn), 2, "this model has no few-step LoRA")
    result = run(*asked, "-o", model / "fast.safetensors")
    assert (result.code, result.paths) == (0, [model / "fast.safetensors"])
    assert is_one_line(run(*asked, "-o", model / "fast.safetensors"), 2, "fast.safetensors exists")
    assert run(*drawn, "-o", "cat.png").code == 0
    settings = read_settings(Image.open("cat.png"))
    made = None if settings is None else settings.request
    assert made is not None and (made.fast, made.steps, made.guidance, made.sampler) == (True, 4, 1.0, "euler")
    assert run("replay", "cat.png", "--model", model, "-o", "again.png").code == 0
    assert Image.open("again.png").tobytes() == Image.open("cat.png").tobytes()


def test_image_to_image(run: Run, model: Path) -> None:
    Path("prompts.txt").write_text("a cat\n")
    assert run("train", "distill", "prompts.txt", "--model", model, *QUICK, "-o", model / "fast.safetensors").code == 0
    Image.new("RGB", (16, 16), "red").save("red.png")
    result = run("img2img", "red.png", "a cat", "--model", model, "--fast", "--strength", 0.5, "-o", "cat.png")
    assert result.code == 0


def test_distill_needs_prompts(run: Run, model: Path) -> None:
    assert is_one_line(run("train", "distill", "--model", model, *QUICK), 2, "give prompts")
    Path("empty.txt").write_text("\n")
    assert is_one_line(run("train", "distill", "empty.txt", "--model", model, *QUICK), 2, "give prompts")
