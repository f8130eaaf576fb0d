"""The published configurations, as their JSON files state them: what makes a family of checkpoints.

Pure data. A loader of single files, which carry no JSON, takes a family's configs from here; tests and makers of
random checkpoints build from the same values. Fields that every file sets to diffusers' default are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint: `parts` by diffusers' folder names, each the JSON of its `config.json`.

    `pipeline_class` is model_index.json's `_class_name`, None where only lone parts are published. `scheduler` is
    scheduler_config.json; `tokenizers` gives by folder name what differs between CLIP's published tokenizers.
    `zero_negative` is model_index.json's `force_zeros_for_empty_prompt`, which only SDXL has.
    """

    name: str
    title: str
    pipeline_class: str | None
    parts: Mapping[str, Json]
    scheduler: Json = field(default_factory=dict)
    tokenizers: Mapping[str, Json] = field(default_factory=dict)
    zero_negative: bool = True


UNET_SD1: Json = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "class_embed_type": None,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "resnet_time_scale_shift": "default",
    "sample_size": 64,
    "time_cond_proj_dim": None,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "upcast_attention": None,
    "use_linear_projection": False,
}
UNET_SD2: Json = {
    **UNET_SD1,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
UNET_SDXL: Json = {
    **UNET_SD1,
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
    "num_attention_heads": None,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
    "use_linear_projection": True,
}

VAE_SD: Json = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "scaling_factor": 0.18215,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
VAE_768: Json = {**VAE_SD, "sample_size": 768}
VAE_SDXL: Json = {**VAE_SD, "force_upcast": True, "sample_size": 1024, "scaling_factor": 0.13025}

TEXT_VIT_L: Json = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
"""OpenAI's CLIP ViT-L/14, the text encoder of SD 1.x and the first of SDXL."""
TEXT_VIT_H: Json = {
    **TEXT_VIT_L,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
"""OpenCLIP's ViT-H/14 without its last layer: SD 2.x reads the penultimate one."""
TEXT_VIT_BIGG: Json = {
    **TEXT_VIT_L,
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
"""OpenCLIP's ViT-bigG/14 with its text projection, the second text encoder of SDXL."""

TOKENIZER: Json = {"model_max_length": 77, "pad_token": "<|endoftext|>"}
TOKENIZER_OPENCLIP: Json = {"model_max_length": 77, "pad_token": "!"}
"""OpenCLIP pads with token 0, which CLIP's vocabulary calls "!"."""

SCHEDULE: Json = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
}
PNDM: Json = {**SCHEDULE, "_class_name": "PNDMScheduler", "skip_prk_steps": True}
DDIM_V: Json = {**SCHEDULE, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "skip_prk_steps": True}
EULER: Json = {
    **SCHEDULE,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "sample_max_value": 1.0,
    "skip_prk_steps": True,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
EULER_TRAILING: Json = {**EULER, "timestep_spacing": "trailing"}
EULER_ANCESTRAL_TRAILING: Json = {
    **{name: value for name, value in EULER_TRAILING.items() if name != "use_karras_sigmas"},
    "_class_name": "EulerAncestralDiscreteScheduler",
}
LCM: Json = {
    **SCHEDULE,
    "_class_name": "LCMScheduler",
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "original_inference_steps": 50,
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "leading",
}

CONTROLNET_SD1: Json = {
    **{
        name: value
        for name, value in UNET_SD1.items()
        if name
        not in {
            "center_input_sample",
            "dual_cross_attention",
            "mid_block_type",
            "out_channels",
            "sample_size",
            "time_cond_proj_dim",
            "time_embedding_type",
            "up_block_types",
        }
    },
    "_class_name": "ControlNetModel",
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "controlnet_conditioning_channel_order": "rgb",
    "projection_class_embeddings_input_dim": None,
    "upcast_attention": False,
}
CONTROLNET_SD2: Json = {
    **CONTROLNET_SD1,
    **{name: UNET_SD2[name] for name in ("attention_head_dim", "cross_attention_dim", "use_linear_projection")},
}
CONTROLNET_SDXL: Json = {
    **CONTROLNET_SD1,
    **{name: UNET_SDXL[name] for name in UNET_SDXL if name in CONTROLNET_SD1 and name != "_class_name"},
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "conditioning_channels": 3,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "global_pool_conditions": False,
    "num_attention_heads": None,
    "transformer_layers_per_block": [1, 2, 10],
}

TAESD: Json = {
    "_class_name": "AutoencoderTiny",
    "act_fn": "relu",
    "decoder_block_out_channels": [64, 64, 64, 64],
    "encoder_block_out_channels": [64, 64, 64, 64],
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}


def _sd1(name: str, title: str, pipeline_class: str, scheduler: Json, **unet: Any) -> Family:
    parts = {"unet": {**UNET_SD1, **unet}, "vae": VAE_SD, "text_encoder": TEXT_VIT_L}
    return Family(name, title, pipeline_class, parts, scheduler, {"tokenizer": TOKENIZER})


def _sd2(
    name: str, title: str, scheduler: Json, pipeline_class: str = "StableDiffusionPipeline", **unet: Any
) -> Family:
    parts = {"unet": {**UNET_SD2, **unet}, "vae": VAE_768, "text_encoder": TEXT_VIT_H}
    return Family(name, title, pipeline_class, parts, scheduler, {"tokenizer": TOKENIZER_OPENCLIP})


def _sdxl(name: str, title: str, scheduler: Json, **unet: Any) -> Family:
    texts = {"text_encoder": TEXT_VIT_L, "text_encoder_2": TEXT_VIT_BIGG}
    parts = {"unet": {**UNET_SDXL, **unet}, "vae": VAE_SDXL, **texts}
    tokenizers = {"tokenizer": TOKENIZER, "tokenizer_2": TOKENIZER_OPENCLIP}
    return Family(name, title, "StableDiffusionXLPipeline", parts, scheduler, tokenizers)


INPAINT = "StableDiffusionInpaintPipeline"

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        _sd1("sd1", "Stable Diffusion 1.x", "StableDiffusionPipeline", PNDM),
        _sd1("sd1-inpaint", "Stable Diffusion 1.5 inpainting", INPAINT, PNDM, in_channels=9),
        _sd2("sd2-base", "Stable Diffusion 2.x base, 512", PNDM),
        _sd2("sd2", "Stable Diffusion 2.x, v-prediction, 768", DDIM_V, sample_size=96, upcast_attention=True),
        _sd2("sd2-inpaint", "Stable Diffusion 2 inpainting", PNDM, INPAINT, in_channels=9),
        _sd2("sd-turbo", "SD-Turbo", EULER_TRAILING),
        _sdxl("sdxl", "Stable Diffusion XL base", EULER),
        _sdxl("sdxl-turbo", "SDXL-Turbo", EULER_ANCESTRAL_TRAILING, sample_size=64),
        _sd1(
            "lcm", "Latent consistency model on SD 1.5", "LatentConsistencyModelPipeline", LCM, time_cond_proj_dim=256
        ),
        Family("controlnet-sd1", "ControlNet for SD 1.x", None, {"controlnet": CONTROLNET_SD1}),
        Family("controlnet-sd2", "ControlNet for SD 2.x", None, {"controlnet": CONTROLNET_SD2}),
        Family("controlnet-sdxl", "ControlNet for SDXL", None, {"controlnet": CONTROLNET_SDXL}),
        Family("taesd", "Tiny autoencoder for SD 1.x and 2.x", None, {"vae": TAESD}),
        Family("taesdxl", "Tiny autoencoder for SDXL", None, {"vae": TAESD}),
    )
}
"""Every family by name."""
