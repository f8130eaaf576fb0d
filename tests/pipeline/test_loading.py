"""Any layout loads; parts of other checkpoints take their places."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fromnoise as fn
from fromnoise.checkpoints import open_checkpoint
from fromnoise.checkpoints.convert import convert_checkpoint
from fromnoise.checkpoints.folder import save_module
from fromnoise.checkpoints.model_folder import write_folder
from fromnoise.engines import eager
from fromnoise.images.opening import to_png
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.clip_text import ClipText
from fromnoise.models.controlnet import ControlNet
from fromnoise.models.unet import UNet
from fromnoise.pipeline import loading
from tests.checkpoints.samples import small
from tests.tiny import AUTOENCODER, CONTROLNET, TEXT, UNET, write_model, write_tokenizer

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


MISFITS = {
    "instructions": ("unet", UNet(replace(UNET, in_channels=8)), "makes 4 channels of 8"),
    "depth": ("unet", UNet(replace(UNET, in_channels=5)), "makes 4 channels of 5"),
    "answers": ("unet", UNet(replace(UNET, out_channels=8)), "makes 8 channels of 4"),
    "latents": ("vae", Autoencoder(replace(AUTOENCODER, latent_channels=8)), "with the 8 latent channels"),
    "words": ("text_encoder", ClipText(replace(TEXT, hidden_size=48)), "words of width 32, which are 48 wide"),
    "tokens": ("text_encoder", ClipText(replace(TEXT, vocab_size=500)), "knows 500 tokens, but .* go up to 513"),
    "places": ("text_encoder", ClipText(replace(TEXT, max_position_embeddings=8)), "has 8 positions, but .* is 16"),
}
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}


@pytest.mark.parametrize("name", MISFITS)
def test_parts_that_do_not_fit_are_one_line_before_any_weights_are_read(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    part, module, words = MISFITS[name]
    shutil.copytree(tiny_model, tmp_path / "model")
    save_module(tmp_path / "model" / part, module, CLASSES[part], file=next((tiny_model / part).glob("*.saf*")).name)
    monkeypatch.setattr(loading, "filled", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(fn.FromnoiseError, match=rf"^[^\n]*{words}[^\n]*$"):
        fn.load(tmp_path / "model")


def test_parts_of_other_models_are_one_line(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(fn.FromnoiseError, match=rf"{tiny_model}/unet.* latent channels of .*; it can't be used"):
        fn.load(unet=tiny_model)
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "tokenizer")
    with pytest.raises(fn.FromnoiseError, match="knows 514 tokens, but its tokenizer's ids go up to 49407"):
        fn.load(tmp_path / "model")
    shutil.copytree(tiny_model / "vae", tmp_path / "model" / "unet", dirs_exist_ok=True)
    with pytest.raises(fn.FromnoiseError, match="is of the class AutoencoderKL, which can't be a unet"):
        fn.load(tmp_path / "model")


@pytest.mark.parametrize("change", [{"cross_attention_dim": 48}, {"in_channels": 8}, {"block_out_channels": (32, 32)}])
def test_a_control_net_for_another_family_is_one_line(tiny_model: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    save_module(tmp_path / "right", ControlNet(CONTROLNET), "ControlNetModel")
    assert fn.load(tiny_model, controls=[tmp_path / "right"]).controls
    save_module(tmp_path / "wrong", ControlNet(replace(CONTROLNET, **change)), "ControlNetModel")
    with pytest.raises(fn.FromnoiseError, match=rf"^the ControlNet {tmp_path}/wrong[^\n]* is for another family than"):
        fn.load(tiny_model, controls=[tmp_path / "wrong"])


def test_an_int8_unet_can_be_replaced_by_an_ordinary_one(tiny_model: Path) -> None:
    mine, own = (open_checkpoint(tiny_model).parts["unet"] for _ in range(2))
    own = replace(own, config={**own.config, "quantization_config": {"quant_method": "fromnoise-int8"}})
    assert mine.instead_of(own).config == mine.config


@pytest.mark.parametrize("said", [True, False])
def test_sdxls_index_says_whether_an_empty_negative_prompt_is_zeros(tmp_path: Path, said: bool) -> None:
    write_tokenizer(tmp_path / "words", 16)
    own = dict.fromkeys(("tokenizer", "tokenizer_2"), tmp_path / "words")
    write_folder(tmp_path / "model", replace(small("sdxl"), zero_negative=said, tokenizers=own))
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
