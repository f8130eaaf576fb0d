"""Our networks at the trainers' configurations against diffusers' and transformers', every parameter random."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.clip_text import ClipText
from fromnoise.models.unet import UNet
from tests.parity.oracle import LIMITS, difference
from tests.tiny import AUTOENCODER, TEXT, UNET, randomise

UNETS = {
    "own": UNET,
    "sd1": replace(
        UNET,
        block_out_channels=(16, 32, 32),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ),
    "sd2": replace(UNET, use_linear_projection=True, attention_head_dim=(2, 4)),
    "text beside the time": replace(UNET, addition_embed_type="text", addition_embed_type_num_heads=4),
}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("side", [8, 10])
def test_unet(name: str, dtype: torch.dtype, side: int) -> None:
    config = UNETS[name]
    ours = randomise(UNet(config)).to(dtype)
    theirs = UNet2DConditionModel(**config.to_json()).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, config.in_channels, side, side, dtype=dtype)
    time, words = torch.tensor([3.0, 731.5]), torch.randn(2, 5, config.cross_attention_dim, dtype=dtype)
    assert difference(ours(x, time, words), theirs(x, time, words).sample) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("missing", [None, "mid_block_add_attention", "use_quant_conv", "use_post_quant_conv"])
def test_autoencoder(dtype: torch.dtype, missing: str | None) -> None:
    config = replace(AUTOENCODER, **({missing: False} if missing else {}))
    ours = randomise(Autoencoder(config)).to(dtype)
    theirs = AutoencoderKL(**config.to_json()).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    pictures = torch.rand(2, 3, 16, 24, dtype=dtype) * 2 - 1
    mine, reference = ours.distribution(pictures), theirs.encode(pictures).latent_dist
    assert difference(mine.mean, reference.mean) <= LIMITS[dtype]
    assert difference(mine.kl(), reference.kl()) <= 10 * LIMITS[dtype]
    latents = torch.randn(2, 4, 8, 12, dtype=dtype)
    scaled = latents * config.scaling_factor
    assert difference(ours.decode(scaled), theirs.decode(latents).sample) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_text_encoder(dtype: torch.dtype, activation: str) -> None:
    config = replace(TEXT, hidden_act=activation)
    ours = randomise(ClipText(config)).to(dtype)
    theirs = CLIPTextModel(CLIPTextConfig(**config.to_json())).to(dtype)
    prefixed = {key.removeprefix("text_model."): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict(prefixed)
    tokens = torch.randint(0, 510, (3, 16))
    tokens[:, 0], tokens[0, 4:], tokens[1, 9:], tokens[2, 15:] = 512, 513, 513, 513
    states, reference = ours(tokens), theirs(tokens, output_hidden_states=True)
    assert difference(states, reference.last_hidden_state) <= LIMITS[dtype]
    assert difference(ours.sentence(tokens, states), reference.pooler_output) <= LIMITS[dtype]
    penultimate = ours.text_model.final_layer_norm(reference.hidden_states[-2])
    assert difference(ours(tokens, skip=1), penultimate) <= LIMITS[dtype]
