"""From a checkpoint on disk to a pipeline that draws. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fromnoise.checkpoints import Checkpoint, Part, open_checkpoint
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.models.controlnet import ControlNet, ControlNetConfig
from fromnoise.models.published import FAMILIES
from fromnoise.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.pipeline.drawing import Pipeline
from fromnoise.pipeline.scheduler import HABITS, Habits, Scheduler
from fromnoise.runtime.device import pick_device
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.text import PromptEncoder, TextEncoder, Tokenizer
from fromnoise.text.conditioning import READINGS
from fromnoise.text.tokenizer import END

Maker = Callable[[Any], nn.Module]

CLASSES: dict[str, tuple[Any, Maker]] = {
    "UNet2DConditionModel": (UNetConfig, UNet),
    "AutoencoderKL": (AutoencoderConfig, Autoencoder),
    "AutoencoderTiny": (TinyAutoencoderConfig, TinyAutoencoder),
    "ControlNetModel": (ControlNetConfig, ControlNet),
    "CLIPTextModel": (TextConfig, ClipText),
    "CLIPTextModelWithProjection": (TextConfig, ClipText),
}
"""Configs and modules by the class that a part's JSON names."""

NEEDED = ("unet", "vae", "text_encoder")
TEXTS = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))


def load(
    model: str | Path | None = None,
    *,
    unet: str | Path | None = None,
    vae: str | Path | None = None,
    controls: Sequence[str | Path] = (),
    prediction: str | None = None,
    wildcards: str | Path | None = None,
    lora_folder: str | Path | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Pipeline:
    """A pipeline from a Stable Diffusion folder or file in any published layout, or the embedded model.

    `unet` and `vae` name checkpoints, or lone parts, that replace the model's own; `controls` are ControlNets, which a
    request calls by the same names. `prediction` ("epsilon" or "v_prediction") is for files that don't tell. The
    animal.txt of `wildcards` answers `__animal__` in a prompt, the cat.safetensors of `lora_folder` `<lora:cat:0.8>`.
    Raises UsageError when there is no such model, FromnoiseError naming the file when a part is damaged or of another
    family.
    """
    path = EMBEDDED_MODEL if model is None else Path(model).expanduser()
    checkpoint = open_checkpoint(path, prediction=prediction)
    if missing := [name for name in NEEDED if name not in checkpoint.parts]:
        raise UsageError(f"{path} has no {missing[0]}, so it can't draw by itself; use it with --{_only(checkpoint)}")
    replaced = {name: _borrowed(name, other) for name, other in (("unet", unet), ("vae", vae)) if other}
    parts = {**checkpoint.parts, **replaced}
    where = pick_device(device)

    def built(part: Part) -> Any:
        return build(part, where, dtype)

    return Pipeline(
        prompts=_prompts(checkpoint, built),
        unet=built(parts["unet"]),
        autoencoder=built(parts["vae"]),
        scheduler=Scheduler.from_json(checkpoint.scheduler, prediction),
        habits=HABITS.get(checkpoint.family, Habits()),
        controls={str(each): built(_borrowed("controlnet", each)) for each in controls},
        path=path,
        source=parts["unet"].source,
        wildcards=None if wildcards is None else _folder(wildcards),
        lora_folder=None if lora_folder is None else _folder(lora_folder),
    )


def build(part: Part, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The part as a module of ours, filled from its file."""
    config, kind = CLASSES[part.class_name]
    with torch.device("meta"):
        module = kind(config.from_json(part.config))
    part.load_into(module, dtype, device)
    return module.eval().requires_grad_(False)


def _prompts(checkpoint: Checkpoint, built: Callable[[Part], Any]) -> PromptEncoder:
    encoders = [
        TextEncoder(_tokenizer(checkpoint, tokenizer), built(checkpoint.parts[text]))
        for text, tokenizer in TEXTS
        if text in checkpoint.parts
    ]
    return PromptEncoder(encoders, READINGS["sdxl" if len(encoders) > 1 else "sd1"])


def _tokenizer(checkpoint: Checkpoint, name: str) -> Tokenizer:
    folder = checkpoint.tokenizers.get(name)
    if folder is not None:
        return Tokenizer.read(folder)
    family = FAMILIES.get(checkpoint.family)
    fields = family.tokenizers.get(name, {}) if family else {}
    return Tokenizer.clip(fields.get("model_max_length", 77), fields.get("pad_token", END))


def _borrowed(name: str, path: str | Path) -> Part:
    """The part called `name` of another checkpoint, or of a file that holds nothing else."""
    other = open_checkpoint(Path(path).expanduser())
    if name not in other.parts:
        raise UsageError(f"{path} has no {name}; it has {', '.join(other.parts)}")
    return replace(other.parts[name], name=name)


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"there is no folder at {path}")
    return folder


def _only(checkpoint: Checkpoint) -> str:
    return next(iter(checkpoint.parts), "model")
