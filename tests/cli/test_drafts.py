"""Draft, look, finish: on the command line each in a process of its own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.cli.drafts import parse_part
from fromnoise.images.metadata import read_settings
from fromnoise.runtime.errors import UsageError
from tests.cli.conftest import Run
from tests.cli.test_drawing import request_in
from tests.cli.test_errors import is_one_line

FIVE = ("--seed", 4, "--count", 3, "--steps", "2-of-5", "--sampler", "euler-a")


def same(one: Path, other: Path) -> bool:
    return np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))


def test_finished_is_as_drawn_in_one_go(run: Run, tiny_model: Path):
    result = run("draft", "a wolf", *FIVE, "--model", tiny_model, "-o", "wolves")
    assert (result.code, result.paths) == (0, [Path("wolves/sheet.png")])
    settings = read_settings(Image.open("wolves/sheet.png"))
    assert settings is not None
    assert settings.values["Sheet"] == "2 steps of a draft"
    finished = run("finish", "wolves", 2, 3, "--model", tiny_model, "-o", "kept/").paths
    assert [request_in(path).seed for path in finished] == [5, 6]
    for path in finished:
        seed = request_in(path).seed
        how = ("--seed", seed, "--steps", 5, "--sampler", "euler-a", "--model", tiny_model)
        (alone,) = run("a wolf", *how, "-o", f"{seed}.png").paths
        assert same(path, alone)
        assert request_in(path) == request_in(alone)
        assert run("replay", path, "--exact", "--model", tiny_model).code == 0


def test_branches_replay(run: Run, tiny_model: Path):
    run("draft", "a wolf", *FIVE, "--model", tiny_model, "-o", "wolves")
    how = ("--prompt", "a fox", "--guidance", 9, "--model", tiny_model)
    (path,) = run("finish", "wolves", 1, *how, "-o", "fox.png").paths
    request = request_in(path)
    assert (request.prompt, request.guidance, request.steps) == ("a fox", 9.0, 5)
    assert request.begun is not None
    assert (request.begun.steps, request.begun.prompt) == (2, "a wolf")
    assert run("replay", path, "--exact", "--model", tiny_model).code == 0
    assert "2 steps of 'a wolf', guidance 4\n" in run("info", path).stdout.decode()
    (whole,) = run("finish", "wolves", 1, "--model", tiny_model, "-o", "wolf.png").paths
    assert not same(path, whole)


def test_all_are_finished_where_none_is_named(run: Run, tiny_model: Path):
    run("draft", "a wolf", *FIVE, "--model", tiny_model, "-o", "wolves")
    assert len(run("finish", "wolves", "--model", tiny_model, "-o", "kept/").paths) == 3


def test_drafts_are_not_overwritten_unasked(run: Run, tiny_model: Path):
    run("draft", "a wolf", *FIVE, "--model", tiny_model, "-o", "wolves")
    again = ("draft", "a fox", "--steps", "1-of-3", "--count", 1, "--model", tiny_model, "-o", "wolves")
    assert is_one_line(run(*again), 2, "holds drafts already")
    assert run(*again, "--overwrite").code == 0
    assert is_one_line(run("finish", "wolves", 2, "--model", tiny_model), 2, "no draft 2 in wolves; there are 1")


@pytest.mark.parametrize("name", ["sheet.png", "1.json", "1.safetensors"])
def test_other_files_are_not_overwritten_unasked(run: Run, tiny_model: Path, name: str):
    Path("mine").mkdir()
    Path("mine", name).write_bytes(b"mine")
    how = ("draft", "a wolf", "--steps", "1-of-3", "--count", 1, "--model", tiny_model, "-o", "mine")
    assert is_one_line(run(*how), 2, f"mine/{name} exists already")
    assert [(each.name, each.read_bytes()) for each in Path("mine").iterdir()] == [(name, b"mine")]
    assert run(*how, "--overwrite").code == 0


def test_only_drafts_are_replaced(run: Run, tiny_model: Path):
    run("draft", "a wolf", *FIVE, "--model", tiny_model, "-o", "wolves")
    others = [Path("wolves", f"{name}.safetensors") for name in ("2024", "007", "٣", "9")]
    for path in others:
        path.write_bytes(b"an adapter")
    Path("wolves/9.json").write_text('{"ss_network_dim": 8}')
    how = ("draft", "a fox", "--steps", "1-of-3", "--count", 1, "--model", tiny_model, "-o", "wolves", "--overwrite")
    assert run(*how).code == 0
    assert {path.read_bytes() for path in others} == {b"an adapter"}
    assert not Path("wolves/2.safetensors").exists()
    assert len(run("finish", "wolves", "--model", tiny_model, "-o", "kept/").paths) == 1


def test_old_drafts_stay_until_the_new_ones_are_drawn(run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    run("draft", "a wolf", *FIVE, "--model", tiny_model, "-o", "wolves")
    before = {path.name: path.read_bytes() for path in Path("wolves").iterdir()}
    monkeypatch.setattr("fromnoise.pipeline.drafting.draft", interrupted)
    run("draft", "a fox", *FIVE, "--model", tiny_model, "-o", "wolves", "--overwrite")
    assert {path.name: path.read_bytes() for path in Path("wolves").iterdir()} == before


def test_the_home_folder(run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run("draft", "a wolf", *FIVE, "--model", tiny_model, "-o", "~/wolves")
    assert (tmp_path / "home/wolves/sheet.png").exists()
    assert len(run("finish", "~/wolves", 1, 1, "--model", tiny_model, "-o", "kept/").paths) == 1


def test_finished_in_the_number_format_that_they_were_begun_in(run: Run, tiny_model: Path):
    run("draft", "a wolf", *FIVE, "--dtype", "bfloat16", "--model", tiny_model, "-o", "wolves")
    other = run("finish", "wolves", 2, "--dtype", "float32", "--model", tiny_model)
    assert is_one_line(other, 2, "draft 2 was begun in bfloat16, not in float32; finish it with --dtype bfloat16")
    (path,) = run("finish", "wolves", 2, "--model", tiny_model, "-o", "wolf.png").paths
    assert run("replay", path, "--exact", "--model", tiny_model).code == 0


def test_where_they_go_unless_told(run: Run, tiny_model: Path):
    result = run("draft", "A wolf!", "--seed", 7, "--count", 1, "--steps", 1, "--model", tiny_model)
    assert result.paths == [Path("drafts/7-a-wolf/sheet.png")]


def test_mistakes(run: Run, tiny_model: Path):
    model = ("--model", tiny_model)
    assert is_one_line(run("draft", "a", "--steps", "5-of-5", *model), 2, "draft from 1 to 4")
    assert is_one_line(run("draft", "a", "--steps", "some", *model), 2, "must look like 4-of-25")
    assert is_one_line(run("finish", "nothing", *model), 2, "there are no drafts in nothing")
    run("draft", "a wolf", *FIVE, *model, "-o", "wolves")
    assert is_one_line(run("finish", "wolves", 9, *model), 2, "there are 1, 2, 3")
    assert is_one_line(run("finish", "wolves", 1, "--guidance", 200, *model), 2, "guidance must be")
    Path("wolves/1.safetensors").write_bytes(b"")
    assert is_one_line(run("finish", "wolves", 1, *model), 1, "is damaged")


def test_another_model_does_not_finish(run: Run, tiny_model: Path, tmp_path: Path):
    from tests.tiny import write_model

    run("draft", "a wolf", *FIVE, "--model", tiny_model, "-o", "wolves")
    other = write_model(tmp_path / "other")
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert is_one_line(run("finish", "wolves", 1, "--model", other), 2, "wolves was drawn by the model")


def test_parts_of_steps():
    assert parse_part(None) == (None, None)
    assert parse_part("4") == (4, None)
    assert parse_part("4-of-25") == parse_part(" 4 of 25 ") == (4, 25)
    for text in ("", "of", "4-of", "4/25", "-1-of-3", "4.5-of-9"):
        with pytest.raises(UsageError, match="4-of-25"):
            parse_part(text)
