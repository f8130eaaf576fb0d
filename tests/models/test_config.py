from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fromnoise.checkpoints.building import build
from fromnoise.models.autoencoder import AutoencoderConfig
from fromnoise.models.clip_text import TextConfig
from fromnoise.models.controlnet import ControlNetConfig
from fromnoise.models.published import FAMILIES, TEXT_VIT_H, TEXT_VIT_L, UNET_SDXL, VAE_SDXL
from fromnoise.models.tiny_autoencoder import TinyAutoencoderConfig
from fromnoise.models.unet import UNetConfig
from fromnoise.runtime.errors import FromnoiseError
from tests.tiny import UNET

MODERN_UNET = {
    **UNET_SDXL,
    "_diffusers_version": "0.24.0.dev0",
    "attention_type": "default",
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dropout": 0.0,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "reverse_transformer_layers_per_block": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "timestep_post_act": None,
}
"""unet/config.json as SDXL-Turbo has it, with all that later libraries added."""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_published_config_is_read(family: str) -> None:
    for part in FAMILIES[family].parts.values():
        config: Any = build(json.loads(json.dumps(part))).config
        assert type(config).from_json(json.loads(json.dumps(config.to_json()))) == config


def test_fields_of_later_libraries_are_known() -> None:
    assert UNetConfig.from_json(MODERN_UNET) == UNetConfig.from_json(UNET_SDXL)
    vae = {"latents_mean": None, "latents_std": None, "shift_factor": None, "mid_block_add_attention": True}
    assert AutoencoderConfig.from_json({**VAE_SDXL, **vae}) == AutoencoderConfig.from_json(VAE_SDXL)


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (UNetConfig, "class_embed_type", "projection"),
        (UNetConfig, "addition_embed_type", "image"),
        (UNetConfig, "down_block_types", ["CrossAttnDownBlock2D", "AttnDownBlock2D"]),
        (UNetConfig, "up_block_types", ["SimpleCrossAttnUpBlock2D"]),
        (UNetConfig, "num_attention_heads", 8),
        (UNetConfig, "conv_in_kernel", 5),
        (UNetConfig, "dual_cross_attention", True),
        (UNetConfig, "never_heard_of", 1),
        (ControlNetConfig, "controlnet_conditioning_channel_order", "bgr"),
        (AutoencoderConfig, "up_block_types", ["AttnUpDecoderBlock2D"]),
        (AutoencoderConfig, "shift_factor", 0.1),
        (TinyAutoencoderConfig, "act_fn", "gelu"),
        (TextConfig, "hidden_act", "tanh"),
        (TextConfig, "architectures", ["CLIPVisionModel"]),
    ],
)
def test_what_is_not_supported_is_named(config: type[UNetConfig], field: str, value: Any) -> None:
    with pytest.raises(FromnoiseError, match=field):
        config.from_json({field: value})


def test_clips_whole_config_gives_its_text_part() -> None:
    inner = {**TEXT_VIT_H, "architectures": None, "bad_words_ids": None, "top_k": 50, "id2label": {"0": "LABEL_0"}}
    whole = {"model_type": "clip", "architectures": ["CLIPModel"], "text_config": inner, "vision_config": {"a": 1}}
    assert TextConfig.from_json(whole) == TextConfig.from_json(TEXT_VIT_H)
    projecting = {**whole, "architectures": ["CLIPTextModelWithProjection"]}
    assert TextConfig.from_json(projecting).projects and not TextConfig.from_json(whole).projects
    assert not TextConfig.from_json({name: TEXT_VIT_L[name] for name in TEXT_VIT_L if name != "architectures"}).projects


def test_the_published_table_needs_no_torch() -> None:
    code = "import sys, fromnoise.models.published; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers_per_block", "many"),
        ("layers_per_block", 10**9),
        ("attention_head_dim", 0),
        ("norm_num_groups", 7),
        ("block_out_channels", [1e9, 1e9]),
        ("block_out_channels", []),
        ("cross_attention_dim", {}),
        ("in_channels", 10**30),
    ],
)
def test_a_value_that_cant_be_is_one_line(field: str, value: Any) -> None:
    config = {**UNET.to_json(), "_class_name": "UNet2DConditionModel", field: value}
    with pytest.raises(FromnoiseError, match=r"^the config of a UNet2DConditionModel [^\n]*$"):
        build(config)
