"""`optimize` as a person types it."""

from pathlib import Path

import pytest

from fromnoise.nn.eight_bit import supported
from fromnoise.pipeline import optimising
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line

needs_int8 = pytest.mark.skipif(not supported(), reason="needs a CPU with AVX512-VNNI or AMX")


@needs_int8
def test_a_model_is_written_its_loss_told_and_it_draws(run: Run, tiny_model: Path) -> None:
    made = run("optimize", tiny_model, "-o", "small", "--prompt", "a wolf", "--error", 0.2)
    assert (made.code, made.paths) == (0, [Path("small")])
    assert "layers in int8" in made.stderr and "% from the exact ones" in made.stderr
    drawn = run("a wolf", "--model", "small", "--steps", 2, "--seed", 0)
    assert drawn.code == 0 and drawn.paths[0].is_file()
    assert is_one_line(run("optimize", tiny_model, "-o", "small"), 2, "small exists; choose another name")
    assert is_one_line(run("optimize", "small", "-o", "other"), 2, "in int8 already")
    assert is_one_line(run("convert", "small", "x.safetensors"), 1, "in int8")


def test_mistakes_are_one_line(run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_one_line(run("optimize", tiny_model), 2, "say where to write it")
    assert is_one_line(run("optimize", tiny_model, "-o", "x.safetensors"), 2, "a new folder")
    assert is_one_line(run("optimize", tiny_model, "-o", "x", "--error", 2), 2, "--error must lie between 0 and 1")
    monkeypatch.setattr(optimising, "supported", lambda: False)
    assert is_one_line(run("optimize", tiny_model, "-o", "x"), 2, "int8 needs a CPU with AVX512-VNNI or AMX")


def test_its_place_is_looked_at_before_the_work(run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimising, "optimise", lambda *_, **__: pytest.fail("worked"))
    Path("other").mkdir()
    Path("other/a.png").touch()
    assert is_one_line(run("optimize", tiny_model, "-o", "other", "--overwrite"), 2, "a folder of something else")
    assert is_one_line(run("optimize", tiny_model, "-o", ".", "--overwrite"), 2, "that you are in")
    assert is_one_line(run("optimize", tiny_model, "-o", "other/a.png/x"), 2, "can't write in")
    assert is_one_line(run("optimize", tiny_model, "-o", tiny_model.parent, "--overwrite"), 2, "holds")


def test_a_dot_is_no_ending(run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimising, "supported", lambda: False)
    assert is_one_line(run("optimize", tiny_model, "-o", "sd1.5-int8"), 2, "int8 needs a CPU")


def test_help_has_examples(run: Run) -> None:
    told = run("optimize", "--help").stdout.decode()
    assert "fromnoise optimize sd15.safetensors -o sd15-int8/" in told
