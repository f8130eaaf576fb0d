"""`--control`: what of its picture is followed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.images.opening import open_image
from tests.cli.conftest import Run
from tests.cli.test_drawing import request_in
from tests.cli.test_inpainting import mask, picture
from tests.tiny import write_controlnet


def followed() -> np.ndarray:
    (control,) = request_in(Path("a.png")).controls
    return np.asarray(open_image(control.picture).convert("L")) > 127


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return write_controlnet(tmp_path / "net")


def test_a_picture_is_followed_at_the_size_to_draw(draw: Run, net: Path):
    Image.new("RGB", (32, 32), "white").save("edges.png")
    assert draw("a wolf", "--control", f"{net}=edges.png:0.5", "--seed", 1, "-o", "a.png").code == 0
    assert followed().shape == (16, 16)
    assert followed().all()


@pytest.mark.parametrize("scale", [1, 2])
def test_only_masked_follows_the_same_region(draw: Run, net: Path, scale: int):
    picture((48, 48)), mask((28, 28, 36, 36), (48, 48))
    edges = Image.new("RGB", (48, 48))
    edges.paste("white", (28, 28, 36, 36))
    edges.resize((48 * scale, 48 * scale), Image.Resampling.NEAREST).save("edges.png")
    flags = ("--mask", "sofa.png", "--only-masked", 4, "--control", f"{net}=edges.png", "--seed", 1, "-o", "a.png")
    assert draw("inpaint", "room.png", "a hat", *flags).code == 0
    expected = np.zeros((16, 16), bool)
    expected[4:12, 4:12] = True
    assert np.array_equal(followed(), expected)
