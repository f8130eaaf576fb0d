"""Where the parts of a checkpoint stand in one file: under which prefix, in which layout, and how to tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fromnoise.checkpoints.keymap import Extra, KeyMap
from fromnoise.checkpoints.layouts import (
    CLIP,
    CLIP_FOLDER,
    CONTROLNET,
    FOLDER,
    OPENCLIP,
    TINY,
    UNET,
    VAE,
    VAE_FOLDER,
)
from fromnoise.checkpoints.stored import Tensors


@dataclass(frozen=True)
class Place:
    """A part by diffusers' folder name, the prefix of its keys, its layout, and a key that shows it is there."""

    part: str
    prefix: str
    keys: KeyMap
    sign: str

    def within(self, tensors: Tensors) -> Tensors:
        """The part's tensors, their keys without the prefix."""
        return {key[len(self.prefix) :]: each for key, each in tensors.items() if key.startswith(self.prefix)}


_CLIP_SIGN, _BARE_CLIP_SIGN = "text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"
_OPENCLIP_SIGN = "token_embedding.weight"
_VAE_SIGN = "decoder.mid.block_1.conv1.weight"

UNET_PLACE = Place("unet", "model.diffusion_model.", UNET, "out.2.weight")
CONTROLNET_PLACE = Place("controlnet", "control_model.", CONTROLNET, "zero_convs.0.0.weight")
SDXL_CONTROLNET_PLACE = Place("controlnet", "", FOLDER, "controlnet_mid_block.weight")
VAE_PLACE = Place("vae", "first_stage_model.", VAE, _VAE_SIGN)
LONE_VAE_PLACE = Place("vae", "", VAE, _VAE_SIGN)
TINY_PLACE = Place("vae", "", FOLDER, "decoder.layers.0.weight")
CLIP_PLACE = Place("text_encoder", "cond_stage_model.transformer.", CLIP, _CLIP_SIGN)
OPENCLIP_PLACE = Place("text_encoder", "cond_stage_model.model.", OPENCLIP, _OPENCLIP_SIGN)
SDXL_TEXT_PLACE = Place("text_encoder", "conditioner.embedders.0.transformer.", CLIP, _CLIP_SIGN)
SDXL_TEXT_2_PLACE = Place("text_encoder_2", "conditioner.embedders.1.model.", OPENCLIP, _OPENCLIP_SIGN)

PLACES = (
    UNET_PLACE,
    Place("unet", "", UNET, "out.2.weight"),
    Place("unet", "", FOLDER, "up_blocks.0.resnets.0.time_emb_proj.weight"),
    CONTROLNET_PLACE,
    Place("controlnet", "", CONTROLNET, "zero_convs.0.0.weight"),
    SDXL_CONTROLNET_PLACE,
    VAE_PLACE,
    Place("vae", "vae.", VAE, _VAE_SIGN),
    LONE_VAE_PLACE,
    Place("vae", "", VAE_FOLDER, "decoder.mid_block.resnets.0.conv1.weight"),
    TINY_PLACE,
    Place("vae", "", TINY, "decoder.1.weight"),
    CLIP_PLACE,
    Place("text_encoder", "cond_stage_model.transformer.", CLIP, _BARE_CLIP_SIGN),
    SDXL_TEXT_PLACE,
    Place("text_encoder", "conditioner.embedders.0.transformer.", CLIP, _BARE_CLIP_SIGN),
    OPENCLIP_PLACE,
    Place("text_encoder", "conditioner.embedders.0.model.", OPENCLIP, _OPENCLIP_SIGN),
    Place("text_encoder", "", CLIP_FOLDER, _CLIP_SIGN),
    Place("text_encoder", "", CLIP_FOLDER, _BARE_CLIP_SIGN),
    SDXL_TEXT_2_PLACE,
)
"""Every place that is looked at, in this order; the first that is there counts."""

FOLDER_LAYOUTS = (FOLDER, VAE_FOLDER, CLIP_FOLDER)

FILE_EXTRAS = KeyMap(
    extras=tuple(
        Extra(name)
        for name in (
            "model_ema",  # the averaged copy; the plain weights are drawn with, as in other tools
            "betas",
            "alphas_cumprod",
            "alphas_cumprod_prev",
            "sqrt_alphas_cumprod",
            "sqrt_one_minus_alphas_cumprod",
            "log_one_minus_alphas_cumprod",
            "sqrt_recip_alphas_cumprod",
            "sqrt_recipm1_alphas_cumprod",
            "posterior_variance",
            "posterior_log_variance_clipped",
            "posterior_mean_coef1",
            "posterior_mean_coef2",
            "logvar",
            "scale_factor",
            "denoiser.sigmas",
            "embedding_manager",
            "cond_stage_model.logit_scale",
            "v_pred",
            "ztsnr",
        )
    )
)
"""Declared left-overs that belong to no part: training buffers, the averaged copy, marks of the prediction type."""


def find_places(tensors: Tensors) -> Iterator[Place]:
    """Where each part is that the file holds."""
    seen: set[str] = set()
    for place in PLACES:
        if place.part not in seen and place.prefix + place.sign in tensors:
            seen.add(place.part)
            yield place
