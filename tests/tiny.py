"""A whole Stable Diffusion folder with random weights, small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn

from fromnoise.checkpoints.folder import save_module
from fromnoise.checkpoints.model_folder import write_model_folder
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.models.controlnet import ControlNet, ControlNetConfig
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.training.denoiser import SCHEDULER

TEXT = TextConfig(
    vocab_size=514,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=16,
    bos_token_id=512,
    eos_token_id=513,
    pad_token_id=513,
)
UNET = UNetConfig(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(32, 64),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    attention_head_dim=4,
    cross_attention_dim=32,
    norm_num_groups=8,
)
CONTROLNET = ControlNetConfig(
    in_channels=4,
    block_out_channels=(32, 64),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    layers_per_block=1,
    attention_head_dim=4,
    cross_attention_dim=32,
    norm_num_groups=8,
    conditioning_embedding_out_channels=(8, 16),
)
AUTOENCODER = AutoencoderConfig(
    block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, sample_size=16, scaling_factor=0.5
)


def randomise(module: nn.Module, seed: int = 0, spread: float = 0.3) -> nn.Module:
    """Every parameter random, norm scales and biases too, so that a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        deviation = spread if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        with torch.no_grad():
            parameter.normal_(std=deviation, generator=generator)
    return module


def write_tokenizer(folder: Path, length: int) -> None:
    """A vocabulary of single bytes, with and without the end of a word."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{each}</w>" for each in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    specials = {"bos_token": pieces[-2], "eos_token": pieces[-1], "unk_token": pieces[-1], "pad_token": pieces[-1]}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True, **specials}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(specials))


def write_model(folder: Path, **scheduler: object) -> Path:
    """The folder, with fields of the scheduler's config replaced."""
    write_tokenizer(folder / "tokenizer", TEXT.max_position_embeddings)
    single = torch.float32
    save_module(
        folder / "text_encoder", randomise(ClipText(TEXT)), "CLIPTextModel", file="model.safetensors", dtype=single
    )
    save_module(folder / "unet", randomise(UNet(UNET), 1), "UNet2DConditionModel", dtype=single)
    save_module(folder / "vae", randomise(Autoencoder(AUTOENCODER), 2), "AutoencoderKL", dtype=single)
    write_model_folder(folder, {}, {**SCHEDULER, **scheduler})
    return folder


def write_controlnet(folder: Path) -> Path:
    """A ControlNet for the same model."""
    save_module(folder, randomise(ControlNet(CONTROLNET), 3), "ControlNetModel", dtype=torch.float32)
    return folder
