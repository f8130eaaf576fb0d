"""A picture is drawn again from itself alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fromnoise.adapters import Embedding, write_embedding
from fromnoise.cli.replay import difference, tell_changed_adapters
from fromnoise.images.saving import save_picture
from fromnoise.pipeline import load
from fromnoise.request import AdapterHash, Hires, Request
from tests.cli.conftest import Run
from tests.cli.test_drawing import request_in
from tests.cli.test_errors import is_one_line
from tests.tiny import write_model


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_exactly_the_same(run: Run, tiny_model: Path, name: str):
    run("a wolf", "--seed", 4, "--steps", 3, "--sampler", "euler-a", "--model", tiny_model, "-o", name)
    result = run("replay", name, "--exact", "--model", tiny_model)
    assert (result.code, result.stdout) == (0, b"largest difference 0/255, mean 0.0000/255\n")


def test_image_to_image_needs_only_the_picture(run: Run, tiny_model: Path):
    Image.effect_noise((40, 20), 90).save("start.png")
    run("img2img", "start.png", "a wolf", "--steps", 5, "--model", tiny_model, "-o", "a.png")
    Path("start.png").unlink()
    assert run("replay", "a.png", "--exact", "--model", tiny_model).code == 0


def test_one_of_a_batch(draw: Run, run: Run, tiny_model: Path):
    path = draw("a wolf", "--seed", 1, "--count", 3).paths[2]
    assert run("replay", path, "--model", tiny_model).code == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_in_the_number_format_that_drew_it(draw: Run, run: Run, tiny_model: Path, dtype: str):
    path = draw("a wolf", "--seed", 1, "--count", 3, "--dtype", dtype).paths[2]
    assert request_in(path).dtype == dtype
    assert run("replay", path, "--model", tiny_model, "-o", "again.png").code == 0
    assert request_in(Path("again.png")).dtype == dtype


def test_half_precision_draws_pictures_one_by_one_so_that_each_replays_alone(draw: Run, run: Run, tiny_model: Path):
    path = draw("a wolf", "--seed", 1, "--count", 3, "--dtype", "bfloat16").paths[2]
    assert run("replay", path, "--exact", "--model", tiny_model).code == 0


@pytest.mark.parametrize(("change", "code", "exact_code"), [(0, 0, 0), (2, 0, 1), (3, 1, 1)])
def test_exit_codes(draw: Run, run: Run, tiny_model: Path, change: int, code: int, exact_code: int):
    (path,) = draw("a wolf", "--seed", 1).paths
    pixels = np.asarray(Image.open(path)).copy()
    pixels[3, 4, 1] = pixels[3, 4, 1] + change if pixels[3, 4, 1] < 128 else pixels[3, 4, 1] - change
    save_picture(Image.fromarray(pixels), request_in(path), path, overwrite=True)
    result = run("replay", path, "--model", tiny_model)
    assert result.code == code
    assert result.stdout.decode().startswith(f"largest difference {change}/255, mean ")
    assert run("replay", path, "--exact", "--model", tiny_model).code == exact_code


def test_another_model(draw: Run, run: Run, tmp_path: Path):
    (path,) = draw("a wolf").paths
    other = write_model(tmp_path / "other")
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert is_one_line(run("replay", path, "--model", other), 2, "give its folder with --model")


def test_pictures_without_settings(run: Run):
    Image.new("RGB", (8, 8)).save("plain.png")
    assert is_one_line(run("replay", "plain.png"), 2, "carries no settings")
    assert is_one_line(run("replay", "none.png"), 2, "can't read none.png")


def test_pictures_of_other_tools(run: Run, tiny_model: Path):
    info = PngInfo()
    said = "Steps: 3, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 16x16, Model hash: 0123456789, Token merging: 2"
    info.add_text("parameters", f"a wolf\n{said}")
    Image.new("RGB", (16, 16)).save("theirs.png", pnginfo=info)
    result = run("replay", "theirs.png", "--model", tiny_model, "-o", "mine.png")
    assert result.code == 1
    assert request_in(Path("mine.png")).like == "a1111"
    drawn = load(tiny_model)("a wolf", steps=3, sampler="euler", guidance=7.0, seed=1, size=(16, 16), like="a1111")
    assert difference(Image.open("mine.png"), drawn[0].image) == (0, 0.0)


def test_another_tools_hires_fix(run: Run, tiny_model: Path):
    info = PngInfo()
    said = "Steps: 3, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 16x16, Denoising strength: 0.6"
    info.add_text("parameters", f"a wolf\n{said}, Hires upscale: 2, Hires upscaler: Latent")
    Image.new("RGB", (32, 32)).save("theirs.png", pnginfo=info)
    run("replay", "theirs.png", "--model", tiny_model, "-o", "mine.png")
    how = {"steps": 3, "sampler": "euler", "guidance": 7.0, "seed": 1, "size": (16, 16), "like": "a1111"}
    drawn = load(tiny_model)("a wolf", hires=Hires(2.0, "latent", 0.6, 3), **how)
    assert difference(Image.open("mine.png"), drawn[0].image) == (0, 0.0)


def test_another_or_a_missing_adapter(run: Run, draw: Run, tiny_model: Path):
    write_embedding("ink.safetensors", Embedding("<ink>", {"text_encoder": torch.ones(1, 32)}))
    (path,) = draw("an <ink> wolf", "--embedding", "ink.safetensors", "-o", "wolf.png").paths
    result = run("replay", path, "--exact", "--model", tiny_model)
    assert (result.code, result.stderr) == (0, "")
    write_embedding("ink.safetensors", Embedding("<ink>", {"text_encoder": torch.zeros(1, 32)}))
    result = run("replay", path, "--model", tiny_model)
    assert "the embedding ink is another file than the one that drew the picture" in result.stderr
    assert result.stdout.startswith(b"largest difference")
    Path("ink.safetensors").unlink()
    assert is_one_line(run("replay", path, "--model", tiny_model), 2, "the adapter ink.safetensors isn't there")
    Path("elsewhere").mkdir()
    write_embedding("elsewhere/ink.safetensors", Embedding("<ink>", {"text_encoder": torch.ones(1, 32)}))
    assert run("replay", path, "--exact", "--model", tiny_model, "--loras", "elsewhere").code == 0


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ("0123456789ab", "0123456789ab", False),
        ("0123456789", "0123456789ab", False),
        ("0123456789AB", "0123456789ab", False),
        ("0123456789ab", "0123456789ff", True),
        ("0123456789ab", None, True),
    ],
)
def test_hashes_of_any_length_are_compared(theirs: str, ours: str | None, said: bool, caplog: pytest.LogCaptureFixture):
    here = () if ours is None else (AdapterHash("lora", "fur", ours),)
    tell_changed_adapters(Request(hashes=(AdapterHash("lora", "fur", theirs),)), Request(hashes=here))
    assert bool(caplog.records) is said
    assert all("fur" in each.getMessage() for each in caplog.records)


def test_a_fast_picture_from_before_there_was_a_tiny_autoencoder(caplog: pytest.LogCaptureFixture):
    here = Request(fast=True, hashes=(AdapterHash("vae", "vae_tiny", "ab"),))
    tell_changed_adapters(here, here)
    assert not caplog.records
    tell_changed_adapters(Request(fast=True), here)
    assert "decoded by the model's own autoencoder, and is now by vae_tiny" in caplog.text


def test_difference():
    black, grey = Image.new("RGB", (2, 1)), Image.new("RGB", (2, 1))
    grey.putpixel((0, 0), (6, 0, 0))
    assert difference(black, grey) == (6, 1.0)
    assert difference(black, Image.new("RGB", (1, 2))) == (255, 255.0)


def test_settings_that_would_not_be_drawn(run: Run, tiny_model: Path):
    request = Request("a", seed=1, size=(17, 16))
    save_picture(Image.new("RGB", (17, 16)), request, Path("odd.png"))
    assert is_one_line(run("replay", "odd.png", "--model", tiny_model), 2, "multiples of")


def test_from_standard_input(draw: Run, run: Run, tiny_model: Path):
    picture = draw("a wolf", "--seed", 4, "-o", "-").stdout
    assert run("replay", "-", "--exact", "--model", tiny_model, stdin=picture).code == 0


def test_a_picture_that_was_resized(draw: Run, run: Run, tiny_model: Path):
    (path,) = draw("a wolf", "--seed", 4).paths
    image = Image.open(path)
    chunks = PngInfo()
    chunks.add_text("fromnoise", image.text["fromnoise"])
    image.resize((8, 8)).save("small.png", pnginfo=chunks)
    result = run("replay", "small.png", "--model", tiny_model)
    assert result.code == 1
    assert "the file is 8x8 pixels large, and what is drawn 16x16: it was cut or resized since" in result.stderr


def test_another_autoencoder_is_said(run: Run, tiny_model: Path, tmp_path: Path):
    another = write_model(tmp_path / "another")
    said = ("a wolf", "--seed", 1, "--steps", 3, "--model", tiny_model)
    assert run(*said, "--vae", another, "-o", "a.png").code == 0
    assert run("replay", "a.png", "--exact", "--model", tiny_model, "--vae", another).code == 0
    assert "drawn with the vae another (" in run("replay", "a.png", "--model", tiny_model).stderr
