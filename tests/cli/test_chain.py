"""A chain is the piped commands in one file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.cli.chain import read_stages
from fromnoise.request import Request
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line

WOLF = """
negative = "text"
steps = 3

[[stage]]
prompt = "a wolf"
seed = 3
size = "24x16"

[[stage]]
prompt = "a wolf, oil painting"
strength = 0.7
seed = 5

[[stage]]
prompt = "at night"
seed = 6
sampler = "euler-a"
"""


def write(text: str) -> Path:
    path = Path("recipe.toml")
    path.write_text(text)
    return path


def test_the_same_as_piped_commands(run: Run, tiny_model: Path):
    chained = run("chain", write(WOLF), "--model", tiny_model, "-o", "-")
    shared = ["--negative", "text", "--steps", 3, "--model", tiny_model, "-o", "-"]
    picture = run("a wolf", "--seed", 3, "--size", "24x16", *shared).stdout
    picture = run("img2img", "-", "a wolf, oil painting", "--strength", 0.7, "--seed", 5, *shared, stdin=picture).stdout
    picture = run("img2img", "-", "at night", "--seed", 6, "--sampler", "euler-a", *shared, stdin=picture).stdout
    assert chained.code == 0
    assert chained.stdout == picture


def test_from_a_picture(run: Run, tiny_model: Path):
    Path("recipes").mkdir()
    Image.new("RGB", (16, 16), "red").save("recipes/red.png")
    Path("recipes/a.toml").write_text('[[stage]]\nprompt = "a"\npicture = "red.png"\nstrength = 0\nseed = 1\n')
    result = run("chain", "recipes/a.toml", "--model", tiny_model, "-o", "a.png")
    direct = run("img2img", "recipes/red.png", "a", "--strength", 0, "--seed", 1, "--model", tiny_model, "-o", "b.png")
    assert (result.code, direct.code) == (0, 0)
    assert np.array_equal(*(np.asarray(Image.open(name)) for name in ("a.png", "b.png")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no stages"),
        ("stage = 3", "has no stages"),
        ("stage = []", "has no stages"),
        ("[[stage]", "can't read the recipe"),
        ('[[stage]]\nprompt = "a"\ncolour = 1', "stage 1 has an unknown field 'colour'"),
        ('[[stage]]\nprompt = "a"\n[[stage]]\npicture = "a.png"', "stage 2 starts from stage 1"),
        ('[[stage]]\nprompt = "a"\nstrength = 0.5', "no picture to start from"),
        ('[[stage]]\nprompt = "a"\nsampler = ["euler"]', "stage 1: no sampler"),
        ("[[stage]]\nprompt = 3", "stage 1: prompt must be text"),
        ('[[stage]]\nprompt = "a"\nsize = "big"', "stage 1: size must look like"),
        ('[[stage]]\nprompt = "a"\nsteps = 2.5', "stage 1: steps must be a whole number"),
        ('[[stage]]\nprompt = "a"\npicture = "none.png"', "stage 1: can't read none.png"),
        ('[[stage]]\nprompt = "a"\npicture = 3', "stage 1: picture must be a file in quotes"),
        ('[[stage]]\nprompt = "a"\nloras = [1]', "stage 1: loras must be a list of files in quotes"),
        ('[[stage]]\nprompt = "a"\n[[stage.embeddings]]\npath = "b"', "stage 1: embeddings must be a list of files"),
        ('[[stage]]\nprompt = "a"\nsize = [1, 2, 3]', "stage 1: size must be 2 numbers"),
        ("[[stage]]\nsteps = 3", "stage 1 has no prompt"),
        ("x = " + "[" * 10_000, "can't read the recipe"),
    ],
)
def test_bad_recipes(draw: Run, run: Run, tiny_model: Path, text: str, words: str):
    assert is_one_line(run("chain", write(text), "--model", tiny_model), 2, words)


def test_no_recipe(run: Run):
    assert is_one_line(run("chain", "none.toml"), 2, "can't read the recipe none.toml")


def test_the_documented_recipe_runs(run: Run, tiny_model: Path):
    shown = run("chain", "--help").stdout.decode()
    lines = [line.strip() for line in shown.splitlines()]
    text = "\n".join(lines[lines.index('[[stage]]                  # may have: picture = "sketch.png"') :])
    recipe = text[: text.index("For example:")]
    assert run("chain", write(recipe), "--model", tiny_model).code == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("size = [24, 16]", 'size = "24x16"'),
        ("size = 16", 'size = "16"'),
        ("interval = [0.2, 0.8]", 'interval = "0.2-0.8"'),
        ("apg = [0, 0, -0.5]", 'apg = "0,0,-0.5"'),
        ("reuse = [3, 2]", 'reuse = "3,2"'),
        ('loras = "cat.safetensors:0.5"', 'loras = ["cat.safetensors:0.5"]'),
        ('embeddings = "a.pt"', 'embeddings = ["a.pt"]'),
    ],
)
def test_ways_to_say_the_same(one: str, other: str):
    first, second = (read_stages(write(f'[[stage]]\nprompt = "a"\n{said}\n'))[0].request for said in (one, other))
    assert first == second != Request(prompt="a")


def test_later_stages_are_checked_before_anything_is_drawn(run: Run, tiny_model: Path):
    recipe = write('[[stage]]\nprompt = "a"\n[[stage]]\nprompt = "b"\nsize = 17\n')
    result = run("chain", recipe, "--model", tiny_model, "-o", "a.png")
    assert is_one_line(result, 2, "recipe.toml: stage 2: ")
    assert not Path("a.png").exists()
