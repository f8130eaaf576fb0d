"""Any layout loads; parts of other checkpoints take their places."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fromnoise as fn
from fromnoise.checkpoints.convert import convert_checkpoint
from fromnoise.checkpoints.model_folder import write_folder
from fromnoise.engines import eager
from fromnoise.images.opening import to_png
from fromnoise.pipeline import loading
from tests.checkpoints.samples import small
from tests.tiny import write_model

SAID = {"seed": 3, "steps": 3, "sampler": "euler"}


def pixels(pipe: fn.Pipeline) -> np.ndarray:
    return np.asarray(pipe("a kite", **SAID)[0].image)


def test_folder_and_single_file_draw_the_same(tiny_model: Path, tmp_path: Path) -> None:
    convert_checkpoint(tiny_model, tmp_path / "tiny.safetensors")
    assert np.array_equal(pixels(fn.load(tiny_model)), pixels(fn.load(tmp_path / "tiny.safetensors")))


def test_a_lone_autoencoder_takes_the_scale_of_the_one_it_replaces(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model / "vae", tmp_path / "vae")
    config = json.loads((folder / "config.json").read_text())
    del config["scaling_factor"]
    (folder / "config.json").write_text(json.dumps(config))
    pipe = fn.load(tiny_model, vae=folder)
    assert pipe.autoencoder.config.scaling_factor == fn.load(tiny_model).autoencoder.config.scaling_factor == 0.5
    assert np.array_equal(pixels(pipe), pixels(fn.load(tiny_model)))


def test_another_unet_brings_what_it_predicts(tiny_model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "epsilon", prediction_type="epsilon")
    assert fn.load(tiny_model).scheduler.prediction == "v_prediction"
    pipe = fn.load(tiny_model, unet=other)
    assert pipe.scheduler.prediction == "epsilon"
    assert pipe.hash == fn.load(other).hash
    assert np.array_equal(pixels(pipe), pixels(fn.load(other)))
    assert fn.load(tiny_model, unet=other, prediction="v_prediction").scheduler.prediction == "v_prediction"


def test_weights_become_the_dtype_asked_for(tiny_model: Path) -> None:
    pipe = fn.load(tiny_model, dtype=torch.bfloat16)
    assert {each.dtype for each in pipe.unet.parameters()} == {torch.bfloat16}
    assert np.abs(pixels(pipe).astype(int) - pixels(fn.load(tiny_model)).astype(int)).mean() < 10


def test_what_cannot_draw_says_so(tiny_model: Path, tmp_path: Path) -> None:
    lone = tmp_path / "unet.safetensors"
    save_file(load_file(tiny_model / "unet" / "diffusion_pytorch_model.safetensors"), lone)
    shutil.copy(tiny_model / "unet" / "config.json", tmp_path / "config.json")
    with pytest.raises(fn.UsageError, match="use it with --unet"):
        fn.load(lone)
    with pytest.raises(fn.UsageError, match="has no vae"):
        fn.load(tiny_model, vae=lone)
    with pytest.raises(fn.UsageError, match="no folder"):
        fn.load(tiny_model, wildcards=tmp_path / "none")


@pytest.mark.parametrize("said", [True, False])
def test_sdxls_index_says_whether_an_empty_negative_prompt_is_zeros(tmp_path: Path, said: bool) -> None:
    write_folder(tmp_path / "model", replace(small("sdxl"), zero_negative=said))
    assert fn.load(tmp_path / "model").prompts.reading.zero_negative is said


def is_packed(network: torch.nn.Module) -> bool:
    return any(each.is_mkldnn for each in network.parameters())


def test_a_large_network_is_packed_as_it_is_read_and_the_autoencoder_when_it_is_needed(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "SMALL", 1)
    later = fn.load(tiny_model, dtype="float32")
    monkeypatch.setattr(loading, "LARGE", 1)
    pipe = fn.load(tiny_model, dtype="float32")
    assert [is_packed(each) for each in (later.unet, pipe.unet, pipe.autoencoder)] == [False, True, False]
    assert np.array_equal(pixels(pipe), pixels(later))
    assert [is_packed(each) for each in (later.unet, pipe.unet, pipe.autoencoder)] == [True, True, True]
    assert not is_packed(fn.load(tiny_model, dtype="float32", engine="compile").unet)


def test_the_autoencoder_is_packed_before_it_reads_the_first_picture(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "SMALL", 1)
    pipe = fn.load(tiny_model, dtype="float32")
    picture = to_png(pipe("a kite", **SAID)[0].image)
    fresh = fn.load(tiny_model, dtype="float32")
    next(fresh.steps("a kite", **SAID, init=picture, strength=0.7))
    assert is_packed(fresh.autoencoder)
