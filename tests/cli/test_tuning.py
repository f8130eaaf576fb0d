"""`train textual-inversion`, `lora`, `finetune` and `dreambooth` at toy size, and their errors."""

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line

QUICK = ("--steps", 3, "--batch", 2, "--sample-every", 0)


@pytest.fixture
def pictures() -> Path:
    folder = Path("my-dots")
    folder.mkdir()
    for index, colour in enumerate(["red", "green"]):
        Image.new("RGB", (16, 16), colour).save(folder / f"{index}.png")
    return folder


def test_textual_inversion(run: Run, pictures: Path, tiny_model: Path):
    asked = ("train", "textual-inversion", pictures, "--token", "<my-dot>", "--init", "dot", "--model", tiny_model)
    result = run(*asked, *QUICK, "--vectors", 2, "-o", "dot.safetensors")
    assert (result.code, result.paths) == (0, [Path("dot.safetensors")])
    assert Path("runs/textual-inversion-my-dot/checkpoint.pt").exists()
    assert is_one_line(run(*asked, "-o", "dot.safetensors"), 2, "dot.safetensors exists")
    assert is_one_line(run(*asked), 2, "--resume goes on from it")
    drawn = ("a <my-dot>", "--embedding", "dot.safetensors", "--model", tiny_model, "--steps", 2, "-o", "dot.png")
    assert run(*drawn).code == 0


def test_lora(run: Run, pictures: Path, tiny_model: Path):
    asked = ("train", "lora", pictures, "--model", tiny_model, *QUICK)
    assert is_one_line(run(*asked), 2, "0.png has no caption; write 0.txt beside it, or give one --caption for all")
    assert is_one_line(run(*asked, "--caption", "x", "--token", "y"), 2, "--caption or --token, not both")
    result = run(*asked, "--caption", "a dot", "--rank", 2, "--layout", "peft", "--text-encoder")
    assert (result.code, result.paths) == (0, [Path("runs/lora-my-dots/lora.safetensors")])
    drawn = ("a dot", "--lora", result.paths[0], "--model", tiny_model, "--steps", 2, "-o", "dot.png")
    assert run(*drawn).code == 0


def test_a_recipe_and_flags(run: Run, pictures: Path, tiny_model: Path):
    Path("my.toml").write_text("steps = 2\nrank = 3\nbatch = 1\nsample_every = 0\n")
    asked = ("train", "lora", pictures, "--model", tiny_model, "--recipe", "my.toml", "--caption", "x", "--rank", 2)
    assert run(*asked, "--run", "here").code == 0
    written = Path("here/recipe.toml").read_text().splitlines()
    assert {"steps = 2", "rank = 2", "batch = 1"} <= set(written)


def test_a_bad_recipe_trains_nothing(run: Run, pictures: Path, tiny_model: Path):
    Path("my.toml").write_text("check_every = 0\n")
    asked = ("train", "lora", pictures, "--model", tiny_model, "--recipe", "my.toml", "--caption", "x")
    assert is_one_line(run(*asked), 2, "my.toml: check_every must be a whole number from 1 up, not 0")
    assert not Path("runs").exists()


FROM_0 = "must be a number from 0 up, not"
FLAGS = [
    ("lora", ("--rate", "nan"), "--rate must be a number above 0, not nan"),
    ("lora", ("--rate", -1), "--rate must be a number above 0, not -1.0"),
    ("lora", ("--rate", 0), "--rate must be a number above 0, not 0.0"),
    ("lora", ("--alpha", "nan"), f"--alpha {FROM_0} nan"),
    ("lora", ("--most-drift", "inf"), f"--most-drift {FROM_0} inf"),
    ("lora", ("--caption", "   "), "--caption must be text that says something, not '   '"),
    ("finetune", ("--empty", 5), "--empty must be a number from 0 to 1, not 5.0"),
    ("finetune", ("--gamma", -3), f"--gamma {FROM_0} -3.0"),
    ("finetune", ("--noise-offset", "inf"), f"--noise-offset {FROM_0} inf"),
    ("dreambooth", ("--token", "sks", "--class", "dot", "--prior", -4), f"--prior {FROM_0} -4.0"),
    ("dreambooth", ("--token", "sks", "--class", " "), "--class must be text that says something, not ' '"),
    ("distill", ("--guidance", "nan"), "--guidance must be a number from 0 to 100, not nan"),
]


@pytest.mark.parametrize(("command", "flags", "words"), FLAGS, ids=[" ".join(map(str, each[1])) for each in FLAGS])
def test_a_bad_flag_trains_nothing(
    run: Run, pictures: Path, tiny_model: Path, command: str, flags: tuple[object, ...], words: str
):
    for name in ("0", "1"):
        (pictures / f"{name}.txt").write_text("a dot")
    result = run("train", command, pictures, *flags, "--model", tiny_model, *QUICK)
    assert is_one_line(result, 2, words)
    assert not Path("runs").exists()


def test_finetune(run: Run, pictures: Path, tiny_model: Path):
    (pictures / "captions.csv").write_text("file_name,text\n0.png,a red dot\n1.png,a green dot\n")
    asked = ("train", "finetune", pictures / "captions.csv", "--model", tiny_model, *QUICK)
    result = run(*asked, "--average", 0, "-o", "model")
    assert (result.code, result.paths) == (0, [Path("model")])
    assert run("a red dot", "--model", "model", "--steps", 2, "-o", "dot.png").code == 0
    assert is_one_line(run(*asked, "-o", "model"), 2, "model exists")


def test_dreambooth(run: Run, pictures: Path, tiny_model: Path):
    asked = ("train", "dreambooth", pictures, "--token", "sks", "--class", "dot", "--model", tiny_model, *QUICK)
    result = run(*asked, "--lora", "--rank", 2, "--class-pictures", 1)
    assert (result.code, result.paths) == (0, [Path("runs/dreambooth-sks/lora.safetensors")])
    assert is_one_line(run(*asked, "--lora", "-o", "a.png"), 2, "choose a name that ends in .safetensors")


@pytest.mark.parametrize("command", ["textual-inversion", "lora", "finetune", "dreambooth"])
def test_help_has_examples(run: Run, command: str):
    assert f"fromnoise train {command} " in run("train", command, "--help").stdout.decode()


def test_pictures_that_are_not_there(run: Run, tiny_model: Path):
    Path("empty").mkdir()
    asked = ("--caption", "x", "--model", tiny_model)
    assert is_one_line(run("train", "lora", "empty", *asked), 2, "no pictures in empty")
    assert is_one_line(run("train", "lora", "nowhere", *asked), 2, "there is nothing at nowhere")
    Path("empty/bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    assert is_one_line(run("train", "lora", "empty", *asked), 2, "bad.png")
