"""Writing a LoRA so that other tools load it: in kohya's layout, or in that of PEFT and diffusers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.adapters.factors import Lora
from fromnoise.adapters.families import BASE_VERSIONS
from fromnoise.checkpoints.stored import Stored
from fromnoise.checkpoints.tensor_file import write_stored
from fromnoise.runtime.errors import FromnoiseError, UsageError

Loras = Mapping[str, Mapping[str, Lora]]
"""Factors by part (unet, text_encoder, text_encoder_2) and by the layer's name in the model."""


class Layout(StrEnum):
    """How the keys of a LoRA file are spelt."""

    KOHYA = "kohya"
    PEFT = "peft"


def write_lora(
    path: str | Path,
    factors: Loras,
    layout: Layout | str = Layout.KOHYA,
    metadata: Mapping[str, str] | None = None,
    *,
    family: str | None = None,
) -> None:
    """Write a LoRA, replacing what is there; tensors keep their dtype.

    kohya's layout (AUTOMATIC1111, ComfyUI, diffusers) carries each layer's scale as `alpha`, and states the `family`
    ("sd1", "sd2", "sdxl") it was trained on; SDXL's first encoder is `te1` there. In PEFT's, which has no place for it
    that every reader looks at, a scale other than 1 is multiplied into `lora_B`. UsageError when there is no layer,
    FromnoiseError for a layer whose decomposition the layout can't say.
    """
    if not any(factors.values()):
        raise UsageError("there is no layer to write; did anything learn?")
    spell = {Layout.KOHYA: _kohya, Layout.PEFT: _peft}[Layout(layout)]
    two_encoders = family == "sdxl" or "text_encoder_2" in factors
    tensors: dict[str, Tensor] = {}
    for part, named in factors.items():
        for layer, each in named.items():
            tensors |= spell(part, layer, each, two_encoders)
    stored = {key: Stored.of(each.detach().cpu().contiguous()) for key, each in tensors.items()}
    write_stored(Path(path).expanduser(), stored, {**dict(_facts(factors, family)), **(metadata or {})})


def _kohya(part: str, layer: str, lora: Lora, two_encoders: bool) -> dict[str, Tensor]:
    """`lora_unet_down_blocks_0_….lora_up.weight` and so on; convolutions keep their kernels."""
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1" if two_encoders else "lora_te"}.get(part, "lora_te2")
    name = f"{prefix}_{layer.replace('.', '_')}"
    up = lora.up.reshape(*lora.up.shape[:2], 1, 1) if lora.down.ndim == 4 else lora.up
    tensors = {f"{name}.lora_down.weight": lora.down, f"{name}.lora_up.weight": up}
    if lora.mid is not None:
        tensors[f"{name}.lora_mid.weight"] = lora.mid
    return {**tensors, f"{name}.alpha": torch.tensor(lora.scale * lora.rank, dtype=torch.float32)}


def _peft(part: str, layer: str, lora: Lora, two_encoders: bool) -> dict[str, Tensor]:
    """`unet.down_blocks.0.….lora_A.weight` and `lora_B.weight`."""
    if lora.mid is not None:
        raise FromnoiseError(f"PEFT's layout can't hold the CP decomposition of {layer}; write kohya's")
    up = lora.up.reshape(*lora.up.shape[:2], 1, 1) if lora.down.ndim == 4 else lora.up
    up = up if lora.scale == 1.0 else (up.float() * lora.scale).to(up.dtype)
    return {f"{part}.{layer}.lora_A.weight": lora.down, f"{part}.{layer}.lora_B.weight": up}


def _facts(factors: Loras, family: str | None) -> Iterator[tuple[str, str]]:
    """What kohya's trainer writes and other tools show."""
    every = [each for named in factors.values() for each in named.values()]
    yield "format", "pt"
    yield "ss_network_module", "networks.lora"
    yield "ss_network_dim", str(max(each.rank for each in every))
    yield "ss_network_alpha", str(max(each.scale * each.rank for each in every))
    if family and family in BASE_VERSIONS:
        yield "ss_base_model_version", BASE_VERSIONS[family]
