"""Pictures drawn larger: from words in two passes, and from files."""

from pathlib import Path

import numpy as np
from PIL import Image

from fromnoise.cli.replay import difference
from fromnoise.pipeline import load
from fromnoise.request import Hires
from tests.cli.conftest import Run
from tests.cli.test_drawing import request_in
from tests.cli.test_errors import is_one_line


def test_two_passes(draw: Run, run: Run, tiny_model: Path):
    flags = ("--hires", 1.5, "--hires-upscaler", "latent-bicubic", "--hires-strength", 0.7, "--hires-steps", 2)
    (path,) = draw("a wolf", "--seed", 4, *flags, "-o", "wolf.png").paths
    assert Image.open(path).size == (24, 24)
    assert request_in(path).hires == Hires(1.5, "latent-bicubic", 0.7, 2)
    assert run("replay", path, "--exact", "--model", tiny_model).code == 0
    said = run("info", path).stdout.decode()
    assert "1.5 times as large by latent-bicubic, strength 0.7, 2 steps\n" in said


def test_a_picture_is_upscaled_and_replays(draw: Run, run: Run, tiny_model: Path):
    Image.effect_noise((21, 13), 90).save("start.png")
    (path,) = draw("upscale", "start.png", "a wolf", "--seed", 4, "--strength", 0.5, "-o", "large.png").paths
    image = Image.open(path)
    assert image.size == (42, 26)
    request = request_in(path)
    assert (request.prompt, request.hires) == ("a wolf", Hires(2.0, "lanczos", 0.5, 1, tile=16))
    Path("start.png").unlink()
    assert run("replay", path, "--exact", "--model", tiny_model).code == 0
    again = load(tiny_model)(request)[0].image
    assert difference(image, again) == (0, 0.0)


def test_little_strength_keeps_the_picture(draw: Run):
    Image.radial_gradient("L").resize((32, 32)).save("start.png")
    for strength in (0.34, 1.0):
        draw("upscale", "start.png", "a", "--seed", 1, "--strength", strength, "--steps", 6, "-o", f"{strength}.png")
    draw("upscale", "start.png", "a", "--seed", 1, "--strength", 0, "-o", "0.png")
    kept, little, much = (np.asarray(Image.open(f"{each}.png")).astype(int) for each in (0, 0.34, 1.0))
    assert np.abs(kept - little).mean() < np.abs(kept - much).mean()


def test_the_prompt_of_the_picture_itself(draw: Run, tiny_model: Path):
    draw("a (red:1.2) wolf", "--negative", "blue", "--seed", 4, "-o", "wolf.png")
    (path,) = draw("upscale", "wolf.png", "--scale", 1.5, "-o", "large.png").paths
    assert (request_in(path).prompt, request_in(path).negative) == ("a (red:1.2) wolf", "blue")
    assert Image.open(path).size == (24, 24)
    (path,) = draw("upscale", "wolf.png", "a fox", "--tile", 8, "-o", "fox.png").paths
    assert (request_in(path).prompt, request_in(path).negative) == ("a fox", "")


def test_through_a_pipe(draw: Run):
    drawn = draw("a wolf", "-o", "-").stdout
    result = draw("upscale", "-", "-o", "-", stdin=drawn)
    assert result.code == 0
    assert result.stdout.startswith(b"\x89PNG")


def test_mistakes(draw: Run):
    Image.new("RGB", (16, 16)).save("start.png")
    assert is_one_line(draw("a wolf", "--hires-steps", 3), 2, "--hires-steps goes with --hires SCALE")
    assert is_one_line(draw("a wolf", "--hires", 99), 2, "hires scale must be a number from 1 to 16")
    assert is_one_line(draw("upscale", "start.png", "--upscaler", "esrgan"), 2, "no hires upscaler 'esrgan'")
    assert is_one_line(draw("upscale", "start.png", "--strength", 2), 2, "hires strength must be")
    assert is_one_line(draw("upscale", "start.png", "--tile", 2), 2, "hires tile must be")
    assert is_one_line(draw("upscale", "none.png"), 2, "can't read none.png")
