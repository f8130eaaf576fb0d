"""Grids over one or two options, and the steps of one drawing, as sheets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.cli.grid import Axis, cells, parse_axis
from fromnoise.cli.steps import steps_sheet
from fromnoise.images.metadata import read_settings
from fromnoise.images.opening import open_image
from fromnoise.pipeline import load
from fromnoise.request import Lora, Request
from fromnoise.runtime.errors import UsageError
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("guidance=1.1,3,7", Axis("guidance", (1.1, 3.0, 7.0))),
        ("seed=0-3", Axis("seed", (0, 1, 2, 3))),
        ("seed=7, 1-2,5", Axis("seed", (7, 1, 2, 5))),
        ("size=16,24x16", Axis("size", ((16, 16), (24, 16)))),
        ("sampler=euler,ddim", Axis("sampler", ("euler", "ddim"))),
        ("clip-skip = 1,2", Axis("clip_skip", (1, 2))),
        ("apg=0,0,-0.5", Axis("apg", ((0.0, 0.0, -0.5),))),
        ("lora=a.safetensors:0.5,b", Axis("lora", (Lora("a.safetensors", 0.5), Lora("b")))),
        ("fast=no,yes", Axis("fast", (False, True))),
        ("negative=|blurry, dark|text", Axis("negative", ("", "blurry, dark", "text"))),
    ],
)
def test_axes(text: str, axis: Axis):
    assert parse_axis(text) == axis


@pytest.mark.parametrize(
    "text", ["seed", "=3", "count=1,2", "seed=", "seed=a", "seed=3-1", "guidance=x", "seed=0-99999", "fast=1"]
)
def test_bad_axes(text: str):
    with pytest.raises(UsageError):
        parse_axis(text)


def test_labels():
    axis = parse_axis("lora=folder/a.safetensors:0.5,b")
    assert [axis.label(each) for each in axis.values] == ["a 0.5", "b 1"]
    assert [Axis("fast", ()).label(each) for each in (False, True)] == ["fast no", "fast yes"]


def test_a_lora_joins_those_of_every_cell():
    ((first, second),) = cells(Request("a", loras=(Lora("x"),)), [parse_axis("lora=a:0.5,b")])
    assert [first[0].loras, second[0].loras] == [(Lora("x"), Lora("a", 0.5)), (Lora("x"), Lora("b"))]


def test_rows_then_columns():
    rows = cells(Request("a", seed=9), [Axis("guidance", (1.0, 7.0)), Axis("seed", (0, 1, 2))])
    found = [[(request.guidance, request.seed) for request, _ in row] for row in rows]
    assert found == [[(1.0, 0), (1.0, 1), (1.0, 2)], [(7.0, 0), (7.0, 1), (7.0, 2)]]
    (row,) = cells(Request("a", seed=9), [Axis("steps", (3, 16))])
    assert [(request.steps, request.seed) for request, _ in row] == [(3, 9), (16, 9)]


def test_a_grid_holds_the_pictures(draw: Run, run: Run):
    result = draw("grid", "a wolf", "--over", "guidance=1.1,7", "--over", "seed=0-2", "-o", "grid.png")
    assert (result.code, result.paths) == (0, [Path("grid.png")])
    sheet = np.asarray(Image.open("grid.png"))
    (alone,) = draw("a wolf", "--guidance", 7, "--seed", 2).paths
    picture = np.asarray(Image.open(alone))
    assert is_inside(picture, sheet)
    settings = read_settings(open_image(Path("grid.png").read_bytes()))
    assert settings is not None
    assert settings.values["Sheet"] == "guidance=1.1,7; seed=0-2"
    assert is_one_line(run("replay", "grid.png"), 2, "contact sheet")


def is_inside(picture: np.ndarray, sheet: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    near = np.abs(windows[:, :, 0, 0].astype(int) - picture[0, 0]).max(-1) <= 2
    return any(np.abs(windows[y, x].astype(int) - picture).max() <= 2 for y, x in np.argwhere(near))


def test_one_fresh_seed_for_the_whole_grid(draw: Run, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "fromnoise"):
        assert draw("grid", "a wolf", "--over", "sampler=euler,euler,heun").code == 0
    assert caplog.text.count("seed ") == 1


def test_models_compared(run: Run, tiny_model: Path):
    result = run("grid", "a", "--over", f"model={tiny_model},{tiny_model}", "--over", "size=16,24x16", "--steps", 1)
    assert result.code == 0


@pytest.mark.parametrize(
    ("over", "words"),
    [
        (["seed=1", "seed=2"], "two different options"),
        (["seed=1", "steps=1", "guidance=1"], "once or twice"),
        (["seed=0-30", "steps=1-30"], "too many"),
        (["sampler=euler,foo"], "no sampler 'foo'"),
        (["size=16,17"], "multiples of"),
        (["colour=red"], "OPTION=VALUES"),
        (["steps=a"], "whole numbers"),
    ],
)
def test_bad_grids(draw: Run, empty_folder: Path, over: list[str], words: str):
    flags = [part for each in over for part in ("--over", each)]
    assert is_one_line(draw("grid", "a wolf", *flags), 2, words)
    assert list(empty_folder.iterdir()) == []


def test_steps(draw: Run, tiny_model: Path):
    result = draw("steps", "a wolf", "--seed", 1, "--steps", 11, "-o", "steps.png")
    assert (result.code, result.paths) == (0, [Path("steps.png")])
    pipe = load(tiny_model)
    request = pipe.resolve("a wolf", seed=1, steps=11)
    assert np.array_equal(np.asarray(Image.open("steps.png")), np.asarray(steps_sheet(pipe, request)))
    sheet = np.asarray(Image.open("steps.png"))
    *_, last = pipe.steps(request)
    for latents in (last.denoised, last.x):
        assert is_inside(np.asarray(pipe.decode(latents)[0]), sheet)


def test_a_sheet_too_wide_for_its_format(draw: Run):
    result = draw("grid", "a", "--over", "seed=0-159", "--steps", 1, "-o", "wide.webp")
    assert (result.code, result.paths) == (0, [Path("wide.png")])
    assert "can't make a WEBP" in result.stderr
