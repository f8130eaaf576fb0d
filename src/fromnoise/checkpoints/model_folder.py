"""Writing a whole Stable Diffusion folder that diffusers loads unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fromnoise.checkpoints.folder import write_json

MODEL_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.35.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_model_folder(folder: Path, parts: Mapping[str, Path], scheduler: Mapping[str, Any]) -> None:
    """Copy the part folders given by name into `folder`; write the index and the scheduler's config beside them."""
    for name, source in parts.items():
        if source.resolve() != (folder / name).resolve():
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", MODEL_INDEX)
