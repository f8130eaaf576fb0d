"""`variations` of a drawn picture, and textures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.images.metadata import read_settings
from tests.cli.conftest import Run
from tests.cli.test_drawing import pixels, request_in
from tests.cli.test_errors import is_one_line


def parameters_in(path: Path) -> str:
    return Image.open(path).info["parameters"]


def test_variations_of_a_picture(draw: Run, run: Run, tiny_model: Path):
    draw("a wolf", "--seed", 3, "-o", "a.png")
    flags = ("--amount", 0.3, "--count", 2, "--variation-seed", 8, "-o", "b.png", "--model", tiny_model)
    result = run("variations", "a.png", *flags)
    assert (result.code, result.paths) == (0, [Path("b-1.png"), Path("b-2.png")])
    first, second = (request_in(path) for path in result.paths)
    assert (first.seed, first.variation, first.variation_seed) == (3, 0.3, 8)
    assert (second.seed, second.variation_seed) == (3, 9)
    assert "Variation seed: 8, Variation seed strength: 0.3" in parameters_in(Path("b-1.png"))
    drawings = [pixels(Path(name)) for name in ("a.png", "b-1.png", "b-2.png")]
    assert len({each.tobytes() for each in drawings}) == 3
    assert run("replay", "b-2.png", "--model", tiny_model).code == 0


def test_a_new_picture_with_a_variation(draw: Run, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "fromnoise"):
        assert draw("a wolf", "--seed", 3, "--variation", 0.2, "-o", "a.png").code == 0
    assert f"variation seed {request_in(Path('a.png')).variation_seed}" in caplog.text


def test_variations_need_settings(run: Run, tiny_model: Path):
    Image.new("RGB", (16, 16)).save("plain.png")
    assert is_one_line(run("variations", "plain.png", "--model", tiny_model), 2, "carries no settings")


@pytest.mark.parametrize(("flag", "words"), [("--amount", "variation must be"), ("--count", "count must be")])
def test_amounts_that_can_not_be_meant(draw: Run, run: Run, flag: str, words: str):
    draw("a wolf", "--seed", 3, "-o", "a.png")
    assert is_one_line(run("variations", "a.png", flag, -1), 2, words)


@pytest.mark.parametrize(("tile", "said"), [("xy", "Tiling: True"), ("x", "Tiling: x")])
def test_a_texture(draw: Run, run: Run, tiny_model: Path, tile: str, said: str):
    assert draw("pebbles", "--tile", tile, "--seed", 1, "-o", "a.png").code == 0
    assert request_in(Path("a.png")).tile == tile
    assert said in parameters_in(Path("a.png"))
    image = Image.open("a.png")
    text = Image.new("RGB", (8, 8))
    text.info["parameters"] = image.info["parameters"]
    settings = read_settings(text)
    assert settings is not None
    assert settings.request is not None
    assert settings.request.tile == tile
    assert run("replay", "a.png", "--exact", "--model", tiny_model).code == 0
    draw("pebbles", "--seed", 1, "-o", "b.png")
    assert not np.array_equal(pixels(Path("a.png")), pixels(Path("b.png")))


def test_axes_that_are_none(draw: Run):
    assert is_one_line(draw("pebbles", "--tile", "z"), 2, "choose one of x, y, xy")
