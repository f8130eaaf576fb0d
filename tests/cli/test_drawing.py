"""`generate` and `img2img`: what is drawn, where it goes, and what is said."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.cli.drawing import steps_said
from fromnoise.images.metadata import read_settings
from fromnoise.images.opening import open_image
from fromnoise.pipeline import load
from fromnoise.request import Request
from fromnoise.text import KnownConcepts
from tests.cli.conftest import Run


def request_in(path: Path) -> Request:
    settings = read_settings(open_image(path.read_bytes()))
    assert settings is not None
    assert settings.request is not None
    return settings.request


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_prompt_alone_is_generate(draw: Run):
    short, long = draw("a red apple", "--seed", 0), draw("generate", "a red apple", "--seed", 0)
    assert (short.code, short.stderr) == (0, "")
    (one,), (other,) = short.paths, long.paths
    assert one.parent == other.parent == Path("outputs")
    assert one.name.endswith("-0-a-red-apple.png")
    assert other.name.endswith("-0-a-red-apple-2.png")
    assert np.array_equal(pixels(one), pixels(other))


def test_flags_may_come_first(draw: Run):
    (path,) = draw("--seed", 3, "a red apple").paths
    assert request_in(path).seed == 3


def test_every_flag_reaches_the_request(run: Run, tiny_model: Path):
    flags = {"--negative": "text", "--seed": 0, "--steps": 2, "--guidance": 1.5, "--sampler": "heun"}
    more = {"--schedule": "karras", "--size": "24x16", "--like": "diffusers", "--model": tiny_model, "-o": "a.png"}
    result = run("a wolf", *(part for pair in (flags | more).items() for part in pair), "--exact")
    assert (result.code, result.paths) == (0, [Path("a.png")])
    found = request_in(Path("a.png"))
    assert found == Request(
        prompt="a wolf",
        negative="text",
        seed=0,
        steps=2,
        guidance=1.5,
        sampler="heun",
        schedule="karras",
        size=(24, 16),
        weighting="none",
        like="diffusers",
        exact=True,
        model=tiny_model.name,
        model_hash=found.model_hash,
        engine="eager",
        dtype="float32",
    )
    assert Image.open("a.png").size == (24, 16)


def test_no_seed_is_a_fresh_one(draw: Run):
    first, second = draw("a wolf").paths + draw("a wolf").paths
    assert request_in(first).seed != request_in(second).seed
    assert str(request_in(first).seed) in first.name


def test_a_batch_has_a_seed_for_each(draw: Run):
    together = draw("a wolf", "--seed", 7, "--count", 4, "-o", "wolves/").paths
    assert [request_in(path).seed for path in together] == [7, 8, 9, 10]
    assert all(request_in(path).count == 1 for path in together)
    (alone,) = draw("a wolf", "--seed", 9).paths
    assert np.abs(pixels(alone).astype(int) - pixels(together[2])).max() <= 2


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("a.png", ["a-1.png", "a-2.png"]),
        ("folder/b.jpg", ["folder/b-1.jpg", "folder/b-2.jpg"]),
        ("{seed}-{slug}-{n}.webp", ["5-a-wolf-1.webp", "6-a-wolf-2.webp"]),
        ("{steps}{sampler}{guidance}.png", ["3dpmpp-2m4.png", "3dpmpp-2m4-2.png"]),
        ("x{{y}}.png", ["x{y}-1.png", "x{y}-2.png"]),
    ],
)
def test_names(draw: Run, place: str, names: list[str]):
    assert draw("A wolf!", "--seed", 5, "--count", 2, "-o", place).paths == [Path(name) for name in names]
    assert all(Path(name).is_file() for name in names)


def test_an_existing_folder_with_a_dot(draw: Run):
    Path("my.folder").mkdir()
    (path,) = draw("a wolf", "-o", "my.folder").paths
    assert path.parent == Path("my.folder")


def test_never_over_a_file_unless_asked(draw: Run):
    Path("a.png").write_text("mine")
    refused = draw("a wolf", "-o", "a.png")
    assert refused.code == 2
    assert "exists" in refused.stderr
    assert Path("a.png").read_text() == "mine"
    assert draw("a wolf", "-o", "a.png", "--overwrite").code == 0
    assert request_in(Path("a.png")).prompt == "a wolf"


def test_standard_output_is_the_picture_alone(draw: Run, empty_folder: Path):
    result = draw("a wolf", "--seed", 1, "-o", "-")
    assert Image.open(io.BytesIO(result.stdout)).size == (16, 16)
    assert result.stdout.endswith(b"IEND\xaeB`\x82")
    assert list(empty_folder.iterdir()) == []


def test_commands_pipe_into_each_other(draw: Run):
    wolf = draw("a wolf", "--seed", 1, "-o", "-").stdout
    result = draw("img2img", "-", "oil", "--seed", 2, "--strength", 0.7, "-o", "oil.png", stdin=wolf)
    assert result.code == 0
    request = request_in(Path("oil.png"))
    assert (request.prompt, request.strength) == ("oil", 0.7)
    assert np.array_equal(np.asarray(open_image(request.init or b"")), np.asarray(Image.open(io.BytesIO(wolf))))


def test_image_to_image_says_how_many_steps_run(run: Run, tiny_model: Path, caplog: pytest.LogCaptureFixture):
    Image.new("RGB", (16, 16), "red").save("red.png")
    with caplog.at_level("INFO", "fromnoise"):
        run("img2img", "red.png", "a wolf", "--strength", 0.6, "--steps", 25, "--model", tiny_model, "--seed", 0)
    assert "25 asked × 0.6 = 15 run (--steps 42 runs 25)" in caplog.text


def test_strength_zero_and_one(draw: Run):
    Image.new("RGB", (16, 16), "red").save("red.png")
    for strength in (0, 1):
        assert draw("img2img", "red.png", "a wolf", "--strength", strength, "-o", f"{strength}.png").code == 0
    assert not np.array_equal(pixels(Path("0.png")), pixels(Path("1.png")))


def test_any_picture_is_brought_to_size(draw: Run, caplog: pytest.LogCaptureFixture):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32), "red").save("photo.jpg", exif=exif)
    with caplog.at_level("INFO", "fromnoise"):
        assert draw("img2img", "photo.jpg", "a wolf", "-o", "a.png").code == 0
    width, height = Image.open("a.png").size
    assert height == pytest.approx(2 * width, rel=0.2)
    assert f"the picture is 32x64; resized to {width}x{height}" in caplog.text
    assert draw("img2img", "photo.jpg", "a wolf", "--size", "24x16", "-o", "b.png").code == 0
    assert Image.open("b.png").size == (24, 16)


def test_a_prompt_far_from_all_it_knows(run: Run, tiny_model: Path, tmp_path: Path):
    model = shutil.copytree(tiny_model, tmp_path / "knowing")
    captions = {"atom symbol": ["atom"], "apple": ["apple"]}
    KnownConcepts.learn(load(model).text, captions, threshold=0.99).save(model)
    far = run("quantum", "--model", model, "--steps", 2)
    assert far.code == 0
    assert far.stderr.startswith("warning: nothing like 'quantum'; nearest: a")
    assert far.stderr.count("\n") == 1
    assert run("apple", "--model", model, "--steps", 2).stderr == ""


def test_looking_for_enough_steps_looks_few_times():
    asked: list[int] = []

    def run_steps(request: Request) -> int:
        asked.append(request.steps or 0)
        return int((request.steps or 0) * request.strength)

    said = steps_said(Request(init=b"", steps=25, strength=0.03), run_steps)
    assert said == "steps: 25 asked × 0.03 = 0 run (--steps 834 runs 25)"
    assert len(asked) < 15
