"""Adapter files in every layout, and what is said of those that are none."""

from __future__ import annotations

import random as shuffling
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fromnoise.adapters import match, read_adapter
from fromnoise.adapters.factors import Factors, Loha, Lokr, Lora
from fromnoise.adapters.keys import layers, read_key, spellings
from fromnoise.runtime.errors import FromnoiseError, UsageError
from tests.adapters.models import parts, random, sdxl_parts

UP, DOWN = random(8, 2), random(2, 6, seed=1)


def written(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path = folder / "made.safetensors"
    save_file({key: each.clone() for key, each in tensors.items()}, path, metadata)
    return path


def only(path: Path) -> tuple[str, str, Factors]:
    """The part, layer and factors of an adapter of one layer."""
    ((part, named),) = read_adapter(path).parts.items()
    ((layer, factors),) = named.items()
    return part, layer, factors


Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
UNDERSCORED = Q.replace(".", "_")
SPELT = {
    "kohya": (f"lora_unet_{UNDERSCORED}.lora_up.weight", f"lora_unet_{UNDERSCORED}.lora_down.weight", UNDERSCORED),
    "peft in diffusers": (f"unet.{Q}.lora_B.weight", f"unet.{Q}.lora_A.weight", Q),
    "peft with a name": (f"unet.{Q}.lora_B.default.weight", f"unet.{Q}.lora_A.default.weight", Q),
    "peft alone": (f"base_model.model.{Q}.lora_B.weight", f"base_model.model.{Q}.lora_A.weight", Q),
    "diffusers 0.20": (f"unet.{Q}.lora.up.weight", f"unet.{Q}.lora.down.weight", Q),
    "diffusers processors": (
        f"unet.{Q.removesuffix('to_q')}processor.to_q_lora.up.weight",
        f"unet.{Q.removesuffix('to_q')}processor.to_q_lora.down.weight",
        Q,
    ),
    "diffusers 0.14": (
        f"{Q.removesuffix('to_q')}processor.to_out_lora.up.weight",
        f"{Q.removesuffix('to_q')}processor.to_out_lora.down.weight",
        f"{Q.removesuffix('to_q')}to_out.0",
    ),
    "linear layers": (f"unet.{Q}.lora_linear_layer.up.weight", f"unet.{Q}.lora_linear_layer.down.weight", Q),
}


@pytest.mark.parametrize("spelling", SPELT)
def test_each_spelling_of_a_lora(spelling: str, tmp_path: Path) -> None:
    up, down, layer = SPELT[spelling]
    part, found, factors = only(written(tmp_path, {up: UP, down: DOWN}))
    assert (part, found) == ("unet", layer)
    assert isinstance(factors, Lora)
    assert torch.equal(factors.up, UP) and torch.equal(factors.down, DOWN)
    assert factors.scale == 1.0
    assert found in spellings("unet", parts()["unet"])


@pytest.mark.parametrize(
    ("key", "part", "layer"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder", "text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder", "text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "text_encoder_2", "text_model_encoder_layers_0_mlp_fc1"),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1", "text_encoder", "text_model.encoder.layers.0.mlp.fc1"),
        ("text_encoder.encoder.layers.0.mlp.fc1", "text_encoder", "encoder.layers.0.mlp.fc1"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"),
        ("base_model.model.text_model.encoder.layers.0.mlp.fc1", "text_encoder", "text_model.encoder.layers.0.mlp.fc1"),
        ("base_model.model.encoder.layers.0.mlp.fc1", "text_encoder", "encoder.layers.0.mlp.fc1"),
        ("lora_unet_mid_block_attentions_0_proj_in", "unet", "mid_block_attentions_0_proj_in"),
        ("lycoris_mid_block_attentions_0_proj_in", "unet", "mid_block_attentions_0_proj_in"),
    ],
)
def test_each_part_is_named_by_the_start_of_a_key(key: str, part: str, layer: str) -> None:
    found = read_key(f"{key}.lora_up.weight")
    assert found is not None
    assert found == (part, layer, "lora_up.weight")
    assert found.layer in spellings(part.removesuffix("_2"), parts()[part.removesuffix("_2")])


def test_every_layer_is_found_by_each_of_its_names() -> None:
    for part, module in (*parts().items(), *sdxl_parts().items()):
        table = spellings(part, module)
        for name in layers(module):
            assert table[name] == table[name.replace(".", "_")] == name
        assert set(table.values()) == set(layers(module))


def test_the_single_file_names_of_sdxl() -> None:
    table = spellings("unet", sdxl_parts()["unet"])
    expected = {
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q": Q,
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "middle_block_1_proj_in": "mid_block.attentions.0.proj_in",
        "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks_8_0_in_layers_2": "up_blocks.2.resnets.2.conv1",
        "time_embed_0": "time_embedding.linear_1",
        "label_emb_0_2": "add_embedding.linear_2",
        "out_2": "conv_out",
    }
    assert {name: table.get(name) for name in expected} == expected


def test_factors_are_paired_by_name_whatever_their_order(tmp_path: Path) -> None:
    names = [f"lora_unet_down_blocks_0_resnets_{index}_conv1" for index in range(6)]
    tensors = {}
    for index, name in enumerate(names):
        tensors[f"{name}.lora_up.weight"] = torch.full((8, 2), float(index))
        tensors[f"{name}.lora_down.weight"] = torch.full((2, 6), 10.0 + index)
        tensors[f"{name}.alpha"] = torch.tensor(float(index + 1))
    keys = list(tensors)
    shuffling.Random(3).shuffle(keys)
    torch.save({key: tensors[key] for key in keys}, tmp_path / "shuffled.pt")
    named = read_adapter(tmp_path / "shuffled.pt").parts["unet"]
    for index, name in enumerate(names):
        factors = named[name.removeprefix("lora_unet_")]
        assert isinstance(factors, Lora)
        assert float(factors.up[0, 0]) == index and float(factors.down[0, 0]) == 10 + index
        assert factors.scale == (index + 1) / 2


@pytest.mark.parametrize("alpha", [torch.tensor(3.0), torch.tensor([3.0]), torch.tensor(3, dtype=torch.int64)])
def test_alpha_over_rank_is_the_scale(alpha: Tensor, tmp_path: Path) -> None:
    tensors = {"lora_unet_a.lora_up.weight": UP, "lora_unet_a.lora_down.weight": DOWN, "lora_unet_a.alpha": alpha}
    assert only(written(tmp_path, tensors))[2].delta().allclose(1.5 * UP @ DOWN)
    tensors["lora_unet_a.scalar"] = torch.tensor(0.5)
    assert only(written(tmp_path, tensors))[2].delta().allclose(0.75 * UP @ DOWN)


def test_a_whole_lokr_has_no_scale(tmp_path: Path) -> None:
    w1, w2 = random(2, 2), random(3, 4, seed=1)
    tensors = {"lora_unet_a.lokr_w1": w1, "lora_unet_a.lokr_w2": w2, "lora_unet_a.alpha": torch.tensor(1e10)}
    _, _, factors = only(written(tmp_path, tensors))
    assert isinstance(factors, Lokr) and factors.size == (6, 8)
    assert torch.equal(factors.delta(), torch.kron(w1, w2))


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
        ({"ss_base_model_version": "sd_1.5"}, "sd1"),
        ({"ss_base_model_version": "sd_v2_v"}, "sd2"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd1"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "sd2"),
        ({"ss_base_model_version": "flux1"}, "flux1"),
        ({"ss_network_dim": "4"}, None),
    ],
)
def test_the_family_that_metadata_states(metadata: dict[str, str], family: str | None, tmp_path: Path) -> None:
    tensors = {"lora_unet_a.lora_up.weight": UP, "lora_unet_a.lora_down.weight": DOWN}
    assert read_adapter(written(tmp_path, tensors, metadata)).family == family


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl"), (64, None)])
def test_the_family_that_shapes_show(width: int, family: str | None, tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_up.weight": UP, f"{name}.lora_down.weight": torch.zeros(2, width)}
    assert read_adapter(written(tmp_path, tensors)).family == family


GOOD = {"lora_unet_a.lora_up.weight": UP, "lora_unet_a.lora_down.weight": DOWN}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({**GOOD, "lora_unet_a.dora_scale": torch.ones(8)}, "DoRA"),
        ({**GOOD, "unet.a.lora_magnitude_vector": torch.ones(8)}, "DoRA"),
        ({"lora_unet_a.diff": torch.ones(8, 6)}, "full differences"),
        ({"lora_unet_a.oft_blocks": torch.ones(8, 6)}, "OFT"),
        ({"lora_unet_a.w_norm": torch.ones(8)}, "trained norms"),
        ({**GOOD, "lora_unet_a.lora_up.bias": torch.ones(8)}, "LoRA with biases"),
        ({**GOOD, "model.diffusion_model.out.2.weight": torch.ones(8)}, "1 of 3 keys are not those of a LoRA"),
        ({"emb_params": torch.ones(2, 32)}, "textual inversion"),
        ({"<cat>": torch.ones(32)}, "textual inversion"),
        ({"lora_unet_a.lora_up.weight": UP}, "lacks its down"),
        ({"lora_unet_a.hada_w1_a": UP, "lora_unet_a.hada_w1_b": DOWN}, "lacks its w2_a, w2_b"),
        ({"lora_unet_a.lokr_w1": UP, "lora_unet_a.lokr_w2_a": DOWN}, "lacks its"),
        ({"lora_unet_a.alpha": torch.tensor(1.0)}, "no LoRA, LoHa or LoKr"),
        ({**GOOD, "lora_unet_a.hada_w1_a": UP}, "no LoRA, LoHa or LoKr"),
        ({**GOOD, "lora_unet_a.lora_down.weight": torch.ones(3, 6)}, "don't fit together"),
        ({**GOOD, "lora_unet_a.alpha": torch.ones(2)}, "alpha of a should be one number"),
        ({**GOOD, "unet.a.lora.up.weight": UP}, "twice"),
    ],
)
def test_what_is_no_adapter_is_said_to_be_none(tensors: dict[str, Tensor], said: str, tmp_path: Path) -> None:
    with pytest.raises(FromnoiseError, match=said):
        read_adapter(written(tmp_path, tensors))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no adapter at"):
        read_adapter(tmp_path / "nothing.safetensors")
    with pytest.raises(UsageError, match="folder without"):
        read_adapter(tmp_path)


def test_a_loha_of_a_convolution_counts_its_kernel(tmp_path: Path) -> None:
    a, b = random(8, 2), random(2, 6 * 9, seed=1)
    tensors = {f"lora_unet_conv_in.hada_{name}": each.clone()
               for name, each in (("w1_a", a), ("w1_b", b), ("w2_a", a), ("w2_b", b))}  # fmt: skip
    _, _, factors = only(written(tmp_path, tensors))
    assert isinstance(factors, Loha) and factors.size == (8, 54)
    with pytest.raises(FromnoiseError, match="other sizes"):
        match(read_adapter(written(tmp_path, tensors)), parts())
