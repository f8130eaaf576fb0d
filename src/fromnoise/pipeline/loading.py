"""From a checkpoint on disk to a pipeline that draws. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fromnoise.checkpoints import Checkpoint, Part, open_checkpoint
from fromnoise.checkpoints.building import build
from fromnoise.hub import found
from fromnoise.models.published import FAMILIES
from fromnoise.pipeline.drawing import Pipeline
from fromnoise.pipeline.scheduler import HABITS, Habits, Scheduler
from fromnoise.runtime.device import pick_device
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.text import PromptEncoder, TextEncoder, Tokenizer
from fromnoise.text.conditioning import READINGS
from fromnoise.text.tokenizer import END

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

    A name that `fromnoise pull owner/name` fetched does for a path; nothing is fetched here. `unet` and `vae` name
    checkpoints, or lone parts, that replace the model's own; `controls` are ControlNets, which a request calls by the
    same names. `prediction` ("epsilon" or "v_prediction") is for files that don't tell. The
    animal.txt of `wildcards` answers `__animal__` in a prompt, the cat.safetensors of `lora_folder` `<lora:cat:0.8>`.
    Raises UsageError when there is no such model, FromnoiseError naming the file when a part is damaged or of another
    family.
    """
    path = EMBEDDED_MODEL if model is None else found(model)
    checkpoint = open_checkpoint(path, prediction=prediction)
    if missing := [name for name in NEEDED if name not in checkpoint.parts]:
        raise UsageError(f"{path} has no {missing[0]}, so it can't draw by itself; use it with --{_only(checkpoint)}")
    others = {name: open_checkpoint(found(other)) for name, other in (("unet", unet), ("vae", vae)) if other}
    replaced = {name: _taken(name, other).instead_of(checkpoint.parts[name]) for name, other in others.items()}
    parts = {**checkpoint.parts, **replaced}
    if prediction is None and "unet" in others:
        prediction = others["unet"].scheduler.get("prediction_type")
    where = pick_device(device)

    def built(part: Part) -> Any:
        return filled(part, where, dtype)

    return Pipeline(
        prompts=_prompts(checkpoint, built),
        unet=built(parts["unet"]),
        autoencoder=built(parts["vae"]),
        scheduler=Scheduler.from_json(checkpoint.scheduler, prediction),
        habits=HABITS.get(checkpoint.family, Habits()),
        controls={str(each): built(_taken("controlnet", open_checkpoint(found(each)))) for each in controls},
        path=path,
        source=parts["unet"].source,
        wildcards=None if wildcards is None else _folder(wildcards),
        lora_folder=None if lora_folder is None else _folder(lora_folder),
    )


def filled(part: Part, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The part as a module of ours, its weights read from its file."""
    module = build(part.config)
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


def _taken(name: str, other: Checkpoint) -> Part:
    """The part called `name` of another checkpoint, or of a file that holds nothing else."""
    if name not in other.parts:
        raise UsageError(f"{other.path} has no {name}; it has {', '.join(other.parts)}")
    return other.parts[name]


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"there is no folder at {path}")
    return folder


def _only(checkpoint: Checkpoint) -> str:
    return next(iter(checkpoint.parts), "model")
