"""A checkpoint opened but not yet read: its family, and its parts in diffusers' names whatever the layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fromnoise.checkpoints.loading import Ready, fill, leave
from fromnoise.checkpoints.report import LoadReport
from fromnoise.checkpoints.stored import Stored, Tensors, main_dtype
from fromnoise.runtime.errors import FromnoiseError

QUANTISATION = "quantization_config"
"""Where a config says which of its layers are kept in 8 bits; diffusers has such an object there, too."""

Kinds = Mapping[str, type | tuple[type, ...]]

CLASSES: Mapping[str, tuple[str, str]] = {
    "UNet2DConditionModel": ("diffusers", "unet"),
    "AutoencoderKL": ("diffusers", "vae"),
    "AutoencoderTiny": ("diffusers", "vae"),
    "ControlNetModel": ("diffusers", "controlnet"),
    "CLIPTextModel": ("transformers", "text_encoder"),
    "CLIPTextModelWithProjection": ("transformers", "text_encoder_2"),
}
"""The classes of parts that are supported: their library, and what the folder of a lone one is taken for."""

CLASS = "_class_name"
"""Where diffusers' JSON names a class, that of a pipeline for instance."""

PIPELINE_FIELDS: Kinds = {CLASS: str}
SCHEDULER_FIELDS: Kinds = {
    **dict.fromkeys(("beta_start", "beta_end"), (int, float)),
    **dict.fromkeys(("beta_schedule", "prediction_type", "timestep_spacing"), str),
    **dict.fromkeys(("num_train_timesteps", "steps_offset"), int),
}
"""What is read of a scheduler's config, by kind."""

PARTS = frozenset(part for _, part in CLASSES.values())
"""What parts are called."""


UNKNOWABLE = ("scaling_factor", "sample_size", "force_upcast")
"""Fields that a part's weights do not show; where it replaces another's, that one's hold."""


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint. `config` is its diffusers or transformers JSON.

    `tensors` have diffusers' keys; `extras` are declared left-overs of a part's folder, by their keys there.
    """

    name: str
    config: dict[str, Any]
    source: Path
    family: str
    tensors: Tensors
    extras: Mapping[str, Stored] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The diffusers keys that the file has."""
        return tuple(self.tensors)

    @property
    def dtype(self) -> torch.dtype | None:
        """The number format that most of the weights are in."""
        return main_dtype(self.tensors.values())

    @property
    def class_name(self) -> str:
        """What diffusers or transformers calls this network."""
        return class_of(self.config)

    def instead_of(self, other: Part) -> Part:
        """This part in the place of `other`, with `other`'s values where this one's weights left a field open.

        A lone autoencoder does not show its scaling factor, and so takes that of the one that it replaces.
        """
        known = {name: other.config[name] for name in UNKNOWABLE if name in other.config}
        same_kind = self.class_name == other.class_name
        return replace(self, name=other.name, config={**(known if same_kind else {}), **self.config})

    def load_into(
        self,
        module: nn.Module,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        ready: Ready = leave,
    ) -> LoadReport:
        """Fill a module made on the meta device; see `loading.fill` for what is what, and for errors."""
        expected = f"{self.name} of a {self.family} checkpoint"
        return fill(module, self.tensors, self.source, expected, dtype=dtype, device=device, ready=ready)


@dataclass(frozen=True)
class Checkpoint:
    """Parts by diffusers' folder names, and what goes with them.

    `family` is a name in `models.published.FAMILIES`, or "custom". `scheduler` holds the values of
    scheduler_config.json. `tokenizers` gives a folder for each text encoder's tokenizer, None where it is CLIP's
    published vocabulary. `extras` are declared left-overs of a single file, by their keys there. `pipeline_class` is
    None for lone parts. `zero_negative` is SDXL's `force_zeros_for_empty_prompt`, which its index may switch off.
    """

    path: Path
    family: str
    parts: Mapping[str, Part]
    scheduler: dict[str, Any] = field(default_factory=dict)
    tokenizers: Mapping[str, Path | None] = field(default_factory=dict)
    extras: Mapping[str, Stored] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    pipeline_class: str | None = None
    zero_negative: bool = True

    @property
    def dtype(self) -> torch.dtype | None:
        """The number format that most of the weights are in."""
        return main_dtype(each for part in self.parts.values() for each in part.tensors.values())

    @property
    def extra_names(self) -> tuple[str, ...]:
        """The declared left-overs of the file, or of each part's folder."""
        return (*self.extras, *(f"{part.name}/{key}" for part in self.parts.values() for key in part.extras))

    @property
    def is_lone(self) -> bool:
        """True for a part published by itself, which replaces the one in another checkpoint."""
        return len(self.parts) == 1


def class_of(config: Mapping[str, Any]) -> str:
    """The class that a config names, in diffusers' way or in transformers'; "" when it names none."""
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    return str(config.get("_class_name") or first)


def require_kinds(path: Path, kinds: Kinds, values: Mapping[str, Any]) -> None:
    """FromnoiseError naming the file unless values, where there are some, are of the kinds that their fields have."""
    for name, kind in kinds.items():
        value = values.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise FromnoiseError(f"{path}: {name} can't be {str(value)[:40]!r}; fetch the file again")
