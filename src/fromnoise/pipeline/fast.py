"""Drawing in a few steps without a guidance pass: the LoRA beside a model that makes it able to, and its settings.

Where calls of the network are few, decoding is a large share of the time; a tiny autoencoder in the model's folder does
it sooner.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch

from fromnoise.checkpoints import open_checkpoint
from fromnoise.checkpoints.building import build
from fromnoise.checkpoints.weights import open_weights, weights_file
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.tiny_autoencoder import TinyAutoencoder
from fromnoise.pipeline.scheduler import Habits
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import FEW_STEPS, TINY, file_state

SETTINGS = "fromnoise.fast"
"""The key in a LoRA's metadata whose value is a JSON object of these fields."""

FIELDS = ("steps", "guidance", "sampler", "schedule")
"""What of a Request such a LoRA was made for."""


def tiny_weights(model: Path | None) -> Path | None:
    """The file of the model's tiny autoencoder, if it has one."""
    folder = None if model is None else model / TINY
    return weights_file(folder) if folder and folder.is_dir() else None


def tiny_autoencoder(
    model: Path | None, large: Autoencoder | TinyAutoencoder, device: torch.device, dtype: torch.dtype
) -> TinyAutoencoder | None:
    """The tiny autoencoder that goes with the model's `large` one, if it has one.

    FromnoiseError where it is damaged, of another kind or for other latents.
    """
    if model is None or not (model / TINY).is_dir():
        return None
    part = open_checkpoint(model / TINY).parts["vae"]
    module = build(part.config).eval().requires_grad_(False)
    if not isinstance(module, TinyAutoencoder) or _latents(module) != _latents(large):
        raise FromnoiseError(f"{model / TINY} doesn't fit this model's latents; remove it, or train one for them")
    part.load_into(module, dtype, device)
    return module


def _latents(autoencoder: Autoencoder | TinyAutoencoder) -> tuple[int, int]:
    """Channels, and how many pixels one is wide."""
    return autoencoder.config.latent_channels, autoencoder.config.factor


def fast_lora(model: Path | None) -> Path:
    """Where the model's few-step LoRA lies: in its folder, or beside its file, whose name it has then.

    UsageError saying how to get one where there is none.
    """
    if model is not None:
        place = model / FEW_STEPS if model.is_dir() else model.with_suffix(f".{FEW_STEPS}")
        if place.is_file():
            return place
        advice = f"make one with: fromnoise train distill PROMPTS --model {model} -o {place}"
    else:
        advice = "make one with: fromnoise train distill"
    raise UsageError(f"this model has no few-step LoRA; {advice}")


def fast_habits(lora: Path) -> Habits:
    """The steps, guidance, sampler and schedule that a few-step LoRA was made for; FromnoiseError where it is none."""
    return _habits(lora, file_state(lora))


@lru_cache(maxsize=8)
def _habits(lora: Path, state: tuple[int, ...]) -> Habits:
    """Those of the file in that state: they are asked for several times a picture."""
    said = open_weights(lora).metadata.get(SETTINGS)
    if said is None:
        raise FromnoiseError(f"{lora} doesn't say how to draw with it; it was not made by: fromnoise train distill")
    try:
        values = json.loads(said)
        return Habits(**{name: values[name] for name in FIELDS})
    except (ValueError, TypeError, KeyError) as error:
        raise FromnoiseError(f"{lora}: its settings are damaged ({error}); distil it again") from error
