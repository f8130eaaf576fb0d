"""A LoRA written and read again is the same LoRA."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fromnoise.adapters import Lora, match, read_adapter, write_lora
from fromnoise.adapters.keys import layers
from fromnoise.runtime.errors import FromnoiseError, UsageError
from tests.adapters.models import cp_lora, for_layers, lora, parts, random, sdxl_parts, two_encoders

MODULES = parts()
PLACES = (("unet", MODULES["unet"], "mid_block"), ("text_encoder", MODULES["text_encoder"], "fc1"))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["kohya", "peft"]),
    st.integers(1, 5),
    st.floats(0.125, 8, width=32),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.booleans(),
)
def test_round_trip(layout: str, rank: int, scale: float, dtype: torch.dtype, whole: bool) -> None:
    scale = 1.0 if whole else scale

    def made(shape: tuple[int, ...], seed: int) -> Lora:
        return lora(shape, seed, rank, scale)

    factors = {
        part: {name: each.to(torch.device("cpu"), dtype) for name, each in for_layers(module, made, only).items()}
        for part, module, only in PLACES
    }
    with TemporaryDirectory() as folder:
        write_lora(Path(folder, "made.safetensors"), factors, layout, {"ss_steps": "5"}, family="sd1")
        again = read_adapter(Path(folder, "made.safetensors"))
        places = match(again, MODULES).places
        assert (again.family, again.metadata["ss_steps"]) == ("sd1", "5")
        assert all(places[part].keys() == named.keys() for part, named in factors.items())
        for part, named in factors.items():
            for name, each in named.items():
                found = places[part][name].factors
                assert isinstance(found, Lora)
                assert torch.equal(found.down.flatten(), each.down.flatten()) and found.down.dtype == dtype
                limit = 1e-5 if layout == "kohya" or dtype == torch.float32 else 2e-2
                strong, expected = found.up.float().flatten() * found.scale, each.up.float().flatten() * scale
                assert torch.allclose(strong, expected, limit, 1e-6)
                if scale == 1.0 or layout == "kohya":
                    assert torch.equal(found.up.flatten(), each.up.flatten())


def test_cp_convolutions_keep_their_core_in_kohyas_layout_only(tmp_path: Path) -> None:
    shape = layers(MODULES["unet"])["conv_in"].weight.shape
    factors = {"unet": {"conv_in": cp_lora(tuple(shape))}}
    write_lora(tmp_path / "made.safetensors", factors)
    (found,) = match(read_adapter(tmp_path / "made.safetensors"), MODULES).places["unet"].values()
    assert torch.allclose(found.factors.delta(), factors["unet"]["conv_in"].delta())
    with pytest.raises(FromnoiseError, match="can't hold the CP decomposition of conv_in"):
        write_lora(tmp_path / "made.safetensors", factors, "peft")


def test_the_encoders_of_sdxl_have_numbers(tmp_path: Path) -> None:
    factors = {name: for_layers(each, lora, "fc1") for name, each in two_encoders().items()}
    write_lora(tmp_path / "both.safetensors", factors)
    assert {key.split("_")[1] for key in load_file(tmp_path / "both.safetensors")} == {"te1", "te2"}
    assert set(read_adapter(tmp_path / "both.safetensors").parts) == {"text_encoder", "text_encoder_2"}
    write_lora(tmp_path / "one.safetensors", {"text_encoder": factors["text_encoder"]}, family="sdxl")
    assert {key.split("_")[1] for key in load_file(tmp_path / "one.safetensors")} == {"te1"}
    write_lora(tmp_path / "one.safetensors", {"text_encoder": factors["text_encoder"]}, family="sd1")
    assert {key.split("_")[1] for key in load_file(tmp_path / "one.safetensors")} == {"te"}


def test_all_of_sdxl_finds_its_place_again(tmp_path: Path) -> None:
    modules = sdxl_parts()
    factors = {name: for_layers(each, lora) for name, each in modules.items()}
    for layout in ("kohya", "peft"):
        write_lora(tmp_path / "made.safetensors", factors, layout)
        matched = match(read_adapter(tmp_path / "made.safetensors"), modules)
        assert matched.counts == {name: (len(each), len(each)) for name, each in factors.items()}
        assert matched.counts["unet"][0] > 700


def test_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no layer to write"):
        write_lora(tmp_path / "made.safetensors", {"unet": {}})
    with pytest.raises(ValueError, match="is not a valid Layout"):
        write_lora(tmp_path / "made.safetensors", {"unet": {"conv_in": Lora(random(2, 1), random(1, 2))}}, "other")
