"""`merge` and `extract` on tiny models."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fromnoise.adapters import Use, applied, extracting, read_adapter
from fromnoise.checkpoints import open_checkpoint
from fromnoise.checkpoints.convert import write_checkpoint
from fromnoise.checkpoints.stored import Stored
from fromnoise.pipeline import load
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line


@pytest.fixture
def tuned(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with something of rank one added to each matrix of its U-Net."""
    base = open_checkpoint(tiny_model)
    unet = base.parts["unet"]
    changed = {
        key: Stored.of(each.read() + 0.01 * torch.arange(each.shape[0])[:, None])
        for key, each in unet.tensors.items()
        if len(each.shape) == 2
    }
    other = replace(base, parts={**base.parts, "unet": replace(unet, tensors={**unet.tensors, **changed})})
    write_checkpoint(other, tmp_path / "tuned.safetensors")
    return tmp_path / "tuned.safetensors"


def test_merge_of_two_and_of_three(run: Run, tiny_model: Path, tuned: Path) -> None:
    done = run("merge", tiny_model, tuned, "-o", "both.safetensors", "--weight", 0.3)
    assert (done.code, done.paths, done.stderr) == (0, [Path("both.safetensors")], "")
    one, two, both = (open_checkpoint(each).parts["unet"].tensors for each in (tiny_model, tuned, "both.safetensors"))
    for key in one:
        assert torch.allclose(both[key].read(), 0.7 * one[key].read() + 0.3 * two[key].read(), atol=1e-6)
    assert run("merge", tiny_model, tuned, tiny_model, "-o", "added", "--weight", 1).code == 0
    added = open_checkpoint(Path("added")).parts["unet"].tensors
    assert all(torch.allclose(added[key].read(), two[key].read(), atol=1e-5) for key in two)
    assert load(Path("added"))("a wolf", seed=0, steps=1)


def test_merge_refuses_to_overwrite_unless_asked(run: Run, tiny_model: Path, tuned: Path) -> None:
    Path("both.safetensors").write_bytes(b"precious")
    done = run("merge", tiny_model, tuned, "-o", "both.safetensors")
    assert done.code == 2 and "exists" in done.stderr
    assert Path("both.safetensors").read_bytes() == b"precious"
    assert run("merge", tiny_model, tuned, "-o", "both.safetensors", "--overwrite").code == 0


def test_merge_names_what_is_wrong(run: Run, tiny_model: Path) -> None:
    done = run("merge", tiny_model, "nothing", "-o", "both")
    assert done.code == 2 and "nothing" in done.stderr
    assert run("merge", tiny_model, tiny_model).code == 2


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_extract(run: Run, tiny_model: Path, tuned: Path, layout: str) -> None:
    done = run("extract", tiny_model, tuned, "-o", "found.safetensors", "--rank", 2, "--layout", layout)
    assert (done.code, done.paths) == (0, [Path("found.safetensors")])
    assert done.stderr.splitlines() == [
        "unet: 50 layers, relative error 0.0%",
        "text_encoder: the same",
        "all: 50 layers, relative error 0.0%",
    ]
    pipeline, other = load(tiny_model), load(tuned)
    with applied({"unet": pipeline.unet}, [Use(read_adapter("found.safetensors"))]):
        for name, each in other.unet.state_dict().items():
            assert torch.allclose(pipeline.unet.state_dict()[name], each, atol=1e-4), name


def test_extract_says_what_is_wrong(run: Run, tiny_model: Path, tuned: Path) -> None:
    assert "nothing to extract" in run("extract", tiny_model, tiny_model, "-o", "found.safetensors").stderr
    assert "ends in .safetensors" in run("extract", tiny_model, tuned, "-o", "found.ckpt").stderr
    Path("found.safetensors").touch()
    assert "exists" in run("extract", tiny_model, tuned, "-o", "found.safetensors").stderr
    assert run("extract", tiny_model, tuned, "-o", "x.safetensors", "--rank", 0).code == 2


def test_no_source_is_replaced_by_what_is_made_of_it(run: Run, tiny_model: Path, tuned: Path) -> None:
    before = tuned.read_bytes()
    for command in ("merge", "extract"):
        done = run(command, tiny_model, tuned, "-o", tuned, "--overwrite")
        assert is_one_line(done, 2, "is what is read")
    shutil.copytree(tiny_model, "hold/unet")
    Path("hold/model_index.json").write_text("{}")
    assert is_one_line(run("merge", tiny_model, "hold/unet", "-o", "hold", "--overwrite"), 2, "hold/unet itself")
    assert tuned.read_bytes() == before and Path("hold/unet/unet/config.json").is_file()


def test_extract_looks_at_its_place_before_it_works(
    run: Run, tiny_model: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracting, "nearest", lambda *_: pytest.fail("worked"))
    Path("folder.safetensors").mkdir()
    Path("file").touch()
    done = run("extract", tiny_model, tuned, "-o", "folder.safetensors", "--overwrite")
    assert is_one_line(done, 2, "of the other kind")
    assert is_one_line(run("extract", tiny_model, tuned, "-o", "file/lora.safetensors"), 2, "can't write in file")
