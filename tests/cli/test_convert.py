"""`convert` as a person types it."""

from pathlib import Path

import pytest

from fromnoise.checkpoints import open_checkpoint
from fromnoise.checkpoints.model_folder import write_folder
from fromnoise.checkpoints.single_file import write_file
from tests.checkpoints.samples import same, small
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line


@pytest.fixture
def model(empty_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FROMNOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
    write_folder(empty_folder / "model", small("sd1"))
    return empty_folder / "model"


def test_to_a_file_and_back(run: Run, model: Path):
    for source, place in (("model", "x.safetensors"), ("x.safetensors", "back")):
        result = run("convert", source, place)
        assert (result.code, result.stderr) == (0, "")
        assert result.paths == [Path(place)]
    assert same(open_checkpoint("back"), open_checkpoint(model))


def test_what_the_prediction_is_can_be_said(run: Run, empty_folder: Path):
    write_file(empty_folder / "x.safetensors", small("sd2"))
    assert run("convert", "x.safetensors", "model", "--prediction", "epsilon").code == 0
    assert open_checkpoint("model").scheduler["prediction_type"] == "epsilon"
    assert is_one_line(run("convert", "x.safetensors", "other", "--prediction", "x0"), 2, "--prediction")


def test_mistakes_are_one_line(run: Run, model: Path):
    assert is_one_line(run("convert", "nowhere", "x.safetensors"), 2, "there is no checkpoint at nowhere")
    assert is_one_line(run("convert", "model"), 2, "DST")
    Path("x.safetensors").write_text("<html>")
    assert is_one_line(run("convert", "x.safetensors", "new"), 1, "x.safetensors is a web page")
    assert is_one_line(run("convert", "model", "x.safetensors"), 2, "exists; choose another name")
    assert run("convert", "model", "x.safetensors", "--overwrite").code == 0
    assert not Path("new").exists()


def test_extras_are_listed_where_a_person_reads(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch):
    from fromnoise.cli import convert

    said: list[str] = []
    monkeypatch.setattr(convert, "note", said.append)
    assert run("convert", "model", "x.safetensors").code == 0
    assert said == ["custom: 986 tensors, 1.1 MB, text_encoder float32, unet float32, vae float32"]
    assert convert._extras(("a", "b"), kept=True) == "extras kept: a, b"
    assert convert._extras(tuple("abcdefghijklmn"), kept=False).endswith("j, k, l, … 14 in all")
