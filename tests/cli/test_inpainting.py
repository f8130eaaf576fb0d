"""`inpaint` and `outpaint`: what is kept, what is said, and that the picture replays."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.cli.test_drawing import pixels, request_in
from tests.cli.test_errors import is_one_line


def picture(size: tuple[int, int] = (16, 16), name: str = "room.png") -> Image.Image:
    made = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8))
    made.save(name)
    return made


def mask(box: tuple[int, int, int, int] = (4, 4, 12, 12), size: tuple[int, int] = (16, 16), name: str = "sofa.png"):
    made = Image.new("L", size)
    made.paste(255, box)
    made.save(name)
    return np.asarray(made) > 0


def test_inside_a_mask(draw: Run, run: Run, tiny_model: Path):
    before, white = np.asarray(picture()), mask()
    result = draw("inpaint", "room.png", "a sofa", "--mask", "sofa.png", "--seed", 1, "-o", "a.png")
    assert (result.code, result.stderr) == (0, "")
    assert np.array_equal(pixels(Path("a.png"))[~white], before[~white])
    assert not np.array_equal(pixels(Path("a.png"))[white], before[white])
    assert request_in(Path("a.png")).strength == 1
    for name in ("room.png", "sofa.png"):
        Path(name).unlink()
    assert run("replay", "a.png", "--exact", "--model", tiny_model).code == 0


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_other_formats_replay_too(draw: Run, run: Run, tiny_model: Path, name: str):
    picture(), mask()
    draw("inpaint", "room.png", "a sofa", "--mask", "sofa.png", "--blur", 1, "--strength", 0.7, "-o", name)
    assert run("replay", name, "--exact", "--model", tiny_model).code == 0


def test_only_masked(draw: Run, run: Run, tiny_model: Path, caplog: pytest.LogCaptureFixture):
    before, white = np.asarray(picture((50, 40))), mask((10, 10, 20, 20), (50, 40))
    flags = ("--mask", "sofa.png", "--only-masked", 4, "--seed", 1, "-o", "a.png")
    with caplog.at_level("INFO", "fromnoise"):
        assert draw("inpaint", "room.png", "a hat", *flags).code == 0
    assert "18x18 of the picture are drawn at 16x16 and put back" in caplog.text
    assert np.array_equal(pixels(Path("a.png"))[~white], before[~white])
    request = request_in(Path("a.png"))
    assert (request.mask_padding, request.size) == (4, (16, 16))
    assert run("replay", "a.png", "--exact", "--model", tiny_model).code == 0


def test_inverted_and_of_another_size(draw: Run):
    before, white = np.asarray(picture()), mask()
    mask((8, 8, 24, 24), (32, 32))
    result = draw("inpaint", "room.png", "a wall", "--mask", "sofa.png", "--invert", "--seed", 1, "-o", "a.png")
    assert result.code == 0
    assert np.array_equal(pixels(Path("a.png"))[white], before[white])
    assert not np.array_equal(pixels(Path("a.png"))[~white], before[~white])


def test_a_transparent_hole(draw: Run):
    whole = picture()
    hole = Image.fromarray(np.where(mask(), 0, 255).astype(np.uint8))
    whole.putalpha(hole)
    whole.save("hole.png")
    assert draw("inpaint", "hole.png", "grass", "--seed", 1, "-o", "a.png").code == 0
    kept = np.asarray(hole) > 0
    assert np.array_equal(pixels(Path("a.png"))[kept], np.asarray(whole.convert("RGB"))[kept])


def test_all_but_a_hole(draw: Run):
    whole, white = picture(), mask()
    before = np.asarray(whole)
    whole.putalpha(Image.fromarray(np.where(white, 0, 255).astype(np.uint8)))
    whole.save("hole.png")
    assert draw("inpaint", "hole.png", "grass", "--invert", "--blur", 0, "--seed", 1, "-o", "a.png").code == 0
    assert (pixels(Path("a.png"))[white] == 255).all()
    assert not np.array_equal(pixels(Path("a.png"))[~white], before[~white])


def test_a_hole_in_a_picture_that_exif_turns(draw: Run):
    whole = picture()
    hole = np.zeros((16, 16), bool)
    hole[1:5, 2:14] = True
    whole.putalpha(Image.fromarray(np.where(hole, 0, 255).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    whole.save("hole.png", exif=exif)
    assert draw("inpaint", "hole.png", "grass", "--blur", 0, "--seed", 1, "-o", "a.png").code == 0
    before, white = np.rot90(np.asarray(whole.convert("RGB")), -1), np.rot90(hole, -1)
    assert np.array_equal(pixels(Path("a.png"))[~white], before[~white])


def test_transparency_beside_a_mask_is_said_to_go(draw: Run, caplog: pytest.LogCaptureFixture):
    whole = picture()
    whole.putalpha(100)
    whole.save("room.png")
    mask()
    with caplog.at_level("INFO", "fromnoise"):
        draw("inpaint", "room.png", "a sofa", "--mask", "sofa.png", "--seed", 1, "-o", "a.png")
    assert "room.png is transparent in places; with --mask they are laid over white" in caplog.text


def test_img2img_takes_a_mask_too(draw: Run):
    before, white = np.asarray(picture()), mask()
    assert draw("img2img", "room.png", "a sofa", "--mask", "sofa.png", "--seed", 1, "-o", "a.png").code == 0
    assert np.array_equal(pixels(Path("a.png"))[~white], before[~white])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give a mask with --mask"),
        (["--mask", "black.png"], "black.png is all black"),
        (["--mask", "white.png"], "white.png is all white"),
        (["--mask", "tall.png"], "tall.png is 8x16 and the picture 16x16"),
        (["--mask", "nowhere.png"], "can't read nowhere.png"),
        (["--mask", "text.png"], "text.png is no picture"),
        (["--mask", "sofa.png", "--blur", "-1"], "mask_blur must be"),
        (["--mask", "sofa.png", "--only-masked", "5000"], "mask_padding must be"),
        (["--mask", "sofa.png", "--strength", "2"], "strength must be"),
        (["--mask", "sofa.png", "--size", "17"], "multiples of 2"),
    ],
)
def test_what_can_not_be_meant(draw: Run, flags: list[str], words: str):
    picture(), mask(), mask((0, 0, 0, 0), name="black.png"), mask((0, 0, 16, 16), name="white.png")
    mask((2, 2, 4, 4), (8, 16), "tall.png")
    Path("text.png").write_text("no picture")
    assert is_one_line(draw("inpaint", "room.png", "a sofa", *flags, "--seed", 1, "-o", "a.png"), 2, words)
    assert not Path("a.png").exists()


def test_outpaint(draw: Run, run: Run, tiny_model: Path):
    before = np.asarray(picture())
    flags = ("--left", 8, "--bottom", 5, "--overlap", 2, "--seed", 1, "-o", "a.png")
    result = draw("outpaint", "room.png", "a wall", *flags)
    assert result.code == 0
    after = pixels(Path("a.png"))
    assert after.shape == (21, 24, 3)
    assert np.array_equal(after[:14, 10:], before[:14, 2:])
    assert run("replay", "a.png", "--exact", "--model", tiny_model).code == 0


def test_outpaint_of_a_large_picture(draw: Run, run: Run, tiny_model: Path, caplog: pytest.LogCaptureFixture):
    before = np.asarray(picture((120, 90)))
    flags = ("--left", 8, "--overlap", 2, "--seed", 1, "-o", "a.png")
    with caplog.at_level("INFO", "fromnoise"):
        assert draw("outpaint", "room.png", "a wall", *flags).code == 0
    assert "128x90 of the picture are drawn at 20x14 and put back" in caplog.text
    after = pixels(Path("a.png"))
    assert after.shape == (90, 128, 3)
    assert np.array_equal(after[:, 10:], before[:, 2:])
    assert run("replay", "a.png", "--exact", "--model", tiny_model).code == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "nothing is added"),
        (["--left", "-4"], "from 0 to 4096"),
        (["--left", "4", "--overlap", "16"], "overlap of 16"),
        (["--left", "4", "--overlap", "-1"], "overlap of -1"),
    ],
)
def test_margins_that_can_not_be_meant(draw: Run, flags: list[str], words: str):
    picture()
    assert is_one_line(draw("outpaint", "room.png", "a wall", *flags, "--seed", 1, "-o", "a.png"), 2, words)
