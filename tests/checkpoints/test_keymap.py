"""The key maps: one to one over every published key, the published names exactly, and each tensor's bits kept."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.checkpoints.checkpoint import Checkpoint, Part
from fromnoise.checkpoints.keymap import KeyMap
from fromnoise.checkpoints.layouts import CLIP_FOLDER, CONTROLNET, OPENCLIP, UNET, VAE, VAE_FOLDER
from fromnoise.checkpoints.places import Place
from fromnoise.checkpoints.single_file import written_place
from fromnoise.checkpoints.stored import Stored
from fromnoise.models.published import FAMILIES
from fromnoise.runtime.errors import FromnoiseError
from tests.checkpoints.samples import equal, expected, published_shapes, shape_only, shrunk, small, weights

PUBLISHED = [(family.name, part) for family in FAMILIES.values() for part in family.parts]

KNOWN = {
    ("sd1", "unet"): (686, "0a32647aed4bb212"),
    ("sd1-inpaint", "unet"): (686, "f32853fdaf221a0f"),
    ("sd2", "unet"): (686, "ddc5d94a25ab77b2"),
    ("sdxl", "unet"): (1680, "8d7b1da7059706a0"),
    ("sd1", "vae"): (248, "240432d782157824"),
    ("sdxl", "vae"): (248, "240432d782157824"),
    ("controlnet-sd1", "controlnet"): (340, "a5a54003a8878a8e"),
    ("sd1", "text_encoder"): (196, "17f60827d7cddc3d"),
    ("sdxl", "text_encoder"): (196, "17f60827d7cddc3d"),
    ("sd2", "text_encoder"): (280, "4ce5613b86ab4fe7"),
    ("sdxl", "text_encoder_2"): (389, "d909c2c593d27531"),
}
"""Number and SHA-256 of the sorted lines "key [shape]" of the files that were really published, extras left out."""


@cache
def place(family: str, part: str) -> tuple[Place, dict, dict[str, Stored], dict[str, Stored]]:
    """Where a published part stands in a single file, its config, and its keys there and in the folder."""
    parts = {name: Part(name, dict(config), FAMILIES, family, {}) for name, config in FAMILIES[family].parts.items()}
    found = written_place(parts[part], Checkpoint(FAMILIES, family, parts))
    folder = {key: shape_only(*each.shape) for key, each in expected(parts[part].config).items()}
    return found, parts[part].config, found.keys.to_single(folder, parts[part].config).tensors, folder


def shapes(tensors: dict[str, Stored]) -> dict[str, tuple[int, ...]]:
    return {key: each.shape for key, each in tensors.items()}


@pytest.mark.parametrize(("family", "part"), PUBLISHED)
def test_a_map_is_one_to_one_over_the_published_keys(family: str, part: str):
    found, config, single, folder = place(family, part)
    back = found.keys.to_folder(single, config)
    assert shapes(back.tensors) == shapes(folder)
    assert not back.left_over
    assert not back.extras


@pytest.mark.parametrize(("family", "part"), KNOWN)
def test_the_names_are_those_of_the_published_files(family: str, part: str):
    lines = sorted(f"{key} [{','.join(map(str, each.shape))}]" for key, each in place(family, part)[2].items())
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]) == KNOWN[family, part]


@given(st.data(), st.sampled_from(PUBLISHED))
@settings(max_examples=40, deadline=None)
def test_any_of_the_keys_come_back_alone(data: st.DataObject, which: tuple[str, str]):
    found, config, single, _ = place(*which)
    chosen = data.draw(st.sets(st.sampled_from(sorted(single)), max_size=30))
    there = found.keys.to_folder({key: single[key] for key in chosen}, config)
    back = found.keys.to_single(there.tensors, config)
    assert shapes(back.tensors) == {key: single[key].shape for key in chosen}
    assert not there.left_over
    assert not back.left_over


@given(st.data(), st.sampled_from(PUBLISHED))
@settings(max_examples=40, deadline=None)
def test_a_key_with_a_slip_is_left_over_or_another_key(data: st.DataObject, which: tuple[str, str]):
    found, config, single, folder = place(*which)
    key = data.draw(st.sampled_from(sorted(single)))
    at = data.draw(st.integers(0, len(key) - 1))
    slip = key[:at] + data.draw(st.sampled_from("abz019._")) + key[at + 1 :]
    mapped = found.keys.to_folder({slip: single[key]}, config)
    assert mapped.left_over or mapped.extras or slip in single or not mapped.tensors.keys() <= folder.keys()


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "lcm", "controlnet-sd1", "taesd"])
def test_every_bit_comes_back(family: str):
    checkpoint = small(family, torch.float16)
    for part in checkpoint.parts.values():
        keys = written_place(part, checkpoint).keys
        single = keys.to_single(part.tensors, part.config).tensors
        assert equal(keys.to_folder(single, part.config).tensors, part.tensors)


def test_fused_projections_are_split_in_the_order_query_key_value():
    config = shrunk(FAMILIES["sdxl"].parts["text_encoder_2"])
    own = weights(config)
    single = OPENCLIP.to_single({key: Stored.of(each) for key, each in own.items()}, config).tensors
    layer = "text_model.encoder.layers.1.self_attn.{}_proj.weight"
    fused = torch.cat([own[layer.format(name)] for name in "qkv"])
    assert torch.equal(single["transformer.resblocks.1.attn.in_proj_weight"].read(), fused)
    assert torch.equal(single["text_projection"].read(), own["text_projection.weight"].T)
    assert single["text_projection"].read().is_contiguous()


def test_a_fused_projection_of_odd_size_does_not_lose_a_row():
    config = shrunk(FAMILIES["sd2"].parts["text_encoder"])
    odd = {"transformer.resblocks.0.attn.in_proj_bias": Stored.of(torch.arange(97.0))}
    assert sum(each.shape[0] for each in OPENCLIP.to_folder(odd, config).tensors.values()) == 97


def test_the_attention_of_the_autoencoder_is_a_convolution_in_single_files():
    config = shrunk(FAMILIES["sd1"].parts["vae"])
    matrix = torch.randn(12, 12)
    key = "encoder.mid_block.attentions.0.to_q.weight"
    single = VAE.to_single({key: Stored.of(matrix)}, config).tensors
    assert shapes(single) == {"encoder.mid.attn_1.q.weight": (12, 12, 1, 1)}
    assert torch.equal(single["encoder.mid.attn_1.q.weight"].read()[:, :, 0, 0], matrix)
    as_matrix = {"encoder.mid.attn_1.q.weight": Stored.of(matrix)}
    assert torch.equal(VAE.to_folder(as_matrix, config).tensors[key].read(), matrix)


@pytest.mark.parametrize("ones", [(), (1,), (1, 1)])
def test_the_old_names_of_the_autoencoders_attention(ones: tuple[int, ...]):
    base = "decoder.mid_block.attentions.0."
    spelt = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0", "group_norm": "group_norm"}
    old = {f"{base}{name}.weight": Stored.of(torch.randn(4, 4, *ones)) for name in spelt}
    mapped = VAE_FOLDER.to_folder(old, FAMILIES["sd1"].parts["vae"])
    for name, new in spelt.items():
        values = mapped.tensors[f"{base}{new}.weight"].read()
        assert torch.equal(values.flatten(), old[f"{base}{name}.weight"].read().flatten())
        assert values.shape == (4, 4) or name == "group_norm"


def test_text_keys_without_their_prefix_and_what_nobody_needs():
    config = FAMILIES["sd1"].parts["text_encoder"]
    bare = {"encoder.layers.0.layer_norm1.weight": shape_only(3), "embeddings.position_ids": shape_only(1, 77)}
    mapped = CLIP_FOLDER.to_folder(bare, config)
    assert list(mapped.tensors) == ["text_model.encoder.layers.0.layer_norm1.weight"]
    assert list(mapped.extras) == ["embeddings.position_ids"]
    projected = CLIP_FOLDER.to_folder({"text_projection.weight": shape_only(3, 3)}, config)
    assert list(projected.extras) == ["text_projection.weight"]
    second = CLIP_FOLDER.to_folder(
        {"text_projection.weight": shape_only(3, 3)}, FAMILIES["sdxl"].parts["text_encoder_2"]
    )
    assert list(second.tensors) == ["text_projection.weight"]


def test_a_controlnet_of_sdxl_under_sgms_keys():
    """Published ones have diffusers' keys, but trainers of SGM's models write these."""
    config = FAMILIES["controlnet-sdxl"].parts["controlnet"]
    folder = {key: shape_only(*each.shape) for key, each in expected(config).items()}
    single = CONTROLNET.to_single(folder, config)
    assert not single.left_over
    assert {"label_emb.0.0.weight", "zero_convs.8.0.weight", "input_hint_block.14.bias"} <= single.tensors.keys()
    assert shapes(CONTROLNET.to_folder(single.tensors, config).tensors) == shapes(folder)


def test_upsamplers_stand_behind_the_transformer_where_there_is_one():
    keys = published_shapes(FAMILIES["sd1"])
    prefix = "model.diffusion_model.output_blocks."
    assert prefix + "2.1.conv.weight" in keys
    assert prefix + "5.2.conv.weight" in keys


@pytest.mark.parametrize("keys", [UNET, VAE, OPENCLIP])
@pytest.mark.parametrize("field", ["block_out_channels", "layers_per_block", "num_hidden_layers"])
def test_a_damaged_config_is_an_error_of_our_own(keys: KeyMap, field: str):
    config = {"_class_name": "UNet2DConditionModel", field: "seven"}
    if field in ("layers_per_block", "num_hidden_layers") and (keys is OPENCLIP) == (field == "num_hidden_layers"):
        with pytest.raises(FromnoiseError, match="config of a UNet2DConditionModel is damaged"):
            keys.to_folder({"a": shape_only(1)}, config)
