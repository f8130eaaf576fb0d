"""Drawing in a few steps without a guidance pass: the LoRA beside a model that makes it able to, and its settings."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from fromnoise.checkpoints.weights import open_weights
from fromnoise.pipeline.scheduler import Habits
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import file_state

SETTINGS = "fromnoise.fast"
"""The key in a LoRA's metadata whose value is a JSON object of these fields."""

FIELDS = ("steps", "guidance", "sampler", "schedule")
"""What of a Request such a LoRA was made for."""

FILE = "fast.safetensors"
"""In a model's folder; beside a model's file, the file's own name with this for its ending."""


def fast_lora(model: Path | None) -> Path:
    """Where the model's few-step LoRA lies; UsageError saying how to get one where there is none."""
    if model is not None:
        place = model / FILE if model.is_dir() else model.with_suffix(f".{FILE}")
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
