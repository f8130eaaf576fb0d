from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fromnoise.checkpoints import load_module
from fromnoise.checkpoints.folder import read_json, read_tensors, save_module, write_tensors
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.runtime.errors import FromnoiseError
from tests.tiny import UNET, randomise

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_module(tmp_path, randomise(UNet(UNET)), "UNet2DConditionModel", dtype=torch.float32)
    return tmp_path


def test_what_is_saved_is_loaded(saved: Path) -> None:
    config = UNetConfig.from_json(read_json(saved / "config.json"))
    assert config == UNET
    module, report = load_module(UNet(config), saved / WEIGHTS)
    assert report.complete
    assert len(report.matched) == len(module.state_dict())
    for key, value in randomise(UNet(UNET)).state_dict().items():
        assert torch.equal(module.state_dict()[key], value)


def test_missing_unknown_and_misshapen_keys_are_named(saved: Path) -> None:
    tensors = read_tensors(saved / WEIGHTS)
    tensors["conv_extra.weight"] = tensors.pop("conv_in.weight")
    tensors["conv_out.bias"] = torch.zeros(9)
    write_tensors(saved / WEIGHTS, tensors)
    with pytest.raises(FromnoiseError) as caught:
        load_module(UNet(UNET), saved / WEIGHTS)
    message = str(caught.value)
    for part in (WEIGHTS, "no UNet", "conv_in.weight", "conv_extra.weight", "conv_out.bias [9] instead of [4]"):
        assert part in message


def test_harmless_extras_are_overlooked(saved: Path) -> None:
    tensors = read_tensors(saved / WEIGHTS)
    tensors["embeddings.position_ids"] = torch.arange(3)
    write_tensors(saved / WEIGHTS, tensors)
    assert load_module(UNet(UNET), saved / WEIGHTS)[1].harmless == ("embeddings.position_ids",)


def test_a_truncated_file_is_named(saved: Path) -> None:
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(FromnoiseError, match="damaged or no safetensors file"):
        load_module(UNet(UNET), saved / WEIGHTS)


def test_an_unsupported_config_is_refused() -> None:
    with pytest.raises(FromnoiseError, match="class_embed_type = 'timestep' is not supported"):
        UNetConfig.from_json({**UNET.to_json(), "class_embed_type": "timestep"})
    with pytest.raises(FromnoiseError, match="act_fn = 'gelu' is not supported"):
        UNetConfig.from_json({**UNET.to_json(), "act_fn": "gelu"})


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "{"])
def test_json_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FromnoiseError, match=r"config\.json"):
        read_json(tmp_path / "config.json")
