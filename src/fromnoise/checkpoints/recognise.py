"""Which family a checkpoint belongs to and what its network predicts, from nothing but its own files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fromnoise.checkpoints.stored import Tensors
from fromnoise.diffusion.scheduler_config import completed
from fromnoise.models.published import FAMILIES, Family
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import note

Json = Mapping[str, Any]

CUSTOM = "custom"
"""The family of a folder whose configs are none of the published ones."""

PREDICTIONS = ("epsilon", "v_prediction")

TURBO = "turbo"

V_THRESHOLD = 0.09
"""The deviation of one bias above which an SD 2.x U-Net predicts v: ComfyUI's rule, measured on published files."""

V_SIGNS = tuple(
    f"{block}.transformer_blocks.0.norm1.bias" for block in ("output_blocks.11.1", "up_blocks.3.attentions.2")
)
"""That bias in the single file and in the folder."""

BASE_STEP = "875000"
"""`global_step` in the pickle of SD 2.0 base, which predicts epsilon."""


def _width(tensors: Tensors, *endings: str) -> int | None:
    """How many inputs the first weight has whose key ends so."""
    shapes = (each.shape for ending in endings for key, each in tensors.items() if key.endswith(ending))
    return next((shape[1] for shape in shapes if len(shape) > 1), None)


def _added(tensors: Tensors) -> str | None:
    if any(key.startswith("add_embedding.pool.") for key in tensors):
        return "text"
    return "text_time" if any(key.startswith(("add_embedding.", "label_emb.")) for key in tensors) else None


SEEN: Mapping[str, Callable[[Tensors], Any]] = MappingProxyType(
    {
        "cross_attention_dim": lambda tensors: _width(tensors, "attn2.to_k.weight"),
        "addition_embed_type": _added,
        "in_channels": lambda tensors: _width(tensors, "conv_in.weight", "input_blocks.0.0.weight"),
        "time_cond_proj_dim": lambda tensors: _width(tensors, "cond_proj.weight"),
    }
)
"""Fields of a U-Net's or ControlNet's config that its weights show, in either layout."""

DECISIVE = ("cross_attention_dim", "addition_embed_type")
"""Those of them that tell the generations apart; the others vary within one."""


REFINER_WIDTH = 1280
"""SDXL's refiner reads its second text encoder alone: the width of its cross-attention."""


@dataclass(frozen=True)
class Evidence:
    """What a prediction type was concluded from, so that a person can judge it."""

    prediction: str
    source: str


def seen_in(tensors: Tensors) -> dict[str, Any]:
    """The config fields that a U-Net's weights show."""
    return {name: look(tensors) for name, look in SEEN.items()}


def seen_in_config(config: Json) -> dict[str, Any]:
    """The same fields as a config states them."""
    return {name: config.get(name) for name in SEEN}


def candidates(part: str, seen: Json) -> list[Family]:
    """The families whose `part` looks so, best first: all fields alike, or at least the decisive ones."""
    near = [
        family
        for family in FAMILIES.values()
        if part in family.parts and all(family.parts[part].get(name) == seen[name] for name in DECISIVE)
    ]
    exact = [family for family in near if seen_in_config(family.parts[part]) == dict(seen)]
    return exact or near


def refuse_refiner(path: Path, seen: Json) -> None:
    """FromnoiseError for SDXL's second model, which goes on from a picture of the first."""
    if seen["cross_attention_dim"] == REFINER_WIDTH and seen["addition_embed_type"] == "text_time":
        raise FromnoiseError(f"{path} is SDXL's refiner, which is not supported; draw with the base model alone")


def named_family(name: str) -> Family:
    """The family that a person asked for; UsageError when there is none of that name."""
    if name not in FAMILIES:
        raise UsageError(f"no family {name!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def family_of_file(path: Path, part: str, tensors: Tensors, prediction: str, metadata: Mapping[str, str]) -> Family:
    """The family of a single file, by the shapes of its U-Net or ControlNet and what it predicts.

    Turbo models look like those that they were distilled from; only the file's name or title says that it is one.
    Raises FromnoiseError when no family looks so.
    """
    seen = seen_in(tensors)
    refuse_refiner(path, seen)
    found = candidates(part, seen)
    if not found:
        fields = ", ".join(f"{name} {value}" for name, value in seen.items() if value is not None)
        raise FromnoiseError(f"{path}: its {part} ({fields}) is of no family that is known ({', '.join(FAMILIES)})")
    titles = (path.stem, *(metadata.get(f"modelspec.{name}", "") for name in ("title", "architecture")))
    turbo = any(TURBO in title.lower() for title in titles)
    return _closest(found, prediction, lambda family: (TURBO in family.name) == turbo)


def family_of_folder(parts: Mapping[str, Json], scheduler: Json) -> str:
    """The family of a folder, by its configs; `custom` when they are none of the published ones."""
    part = next((each for each in ("unet", "controlnet") if each in parts), None)
    if part is None:
        tiny = any(each.get("_class_name") == "AutoencoderTiny" for each in parts.values())
        return "taesd" if tiny else CUSTOM
    seen = seen_in_config(parts[part])
    alike = [each for each in candidates(part, seen) if _same_blocks(each.parts[part], parts[part])]
    prediction = scheduler.get("prediction_type", PREDICTIONS[0])
    spacing = completed(scheduler)["timestep_spacing"]
    return _closest(alike, prediction, lambda each: _spacing(each) == spacing).name if alike else CUSTOM


def _same_blocks(one: Json, other: Json) -> bool:
    return all(list(one[name]) == other.get(name, []) for name in ("block_out_channels", "down_block_types"))


def _spacing(family: Family) -> str:
    return str(completed(family.scheduler)["timestep_spacing"])


def _closest(families: Iterable[Family], prediction: str, likely: Callable[[Family], bool]) -> Family:
    """The first family that is likely and predicts so, or is likely, or is there at all."""
    families = list(families)
    fitting = [each for each in families if each.scheduler.get("prediction_type", prediction) == prediction]
    return next(filter(likely, fitting), next(filter(likely, families), families[0]))


def prediction_of_file(path: Path, unet: Tensors, everything: Tensors, metadata: Mapping[str, str]) -> str:
    """What the U-Net of a single file predicts, `epsilon` or `v_prediction`, with a note where that is a guess.

    In this order: what its metadata states (the ModelSpec standard), the mark `v_pred` that SDXL files carry, and for
    SD 2.x text to image, where nothing is stated, `global_step` of SD 2.0 base or the deviation of one bias.
    """
    evidence = _stated(metadata) or _marked(everything) or _guessed(unet, metadata)
    if evidence.source:
        note(f"{path.name} predicts {evidence.prediction}, judged by {evidence.source}; --prediction says otherwise")
    return evidence.prediction


def _stated(metadata: Mapping[str, str]) -> Evidence | None:
    stated = metadata.get("modelspec.prediction_type", "").lower()
    if stated in ("v", "v_prediction", "velocity"):
        return Evidence("v_prediction", "")
    if stated in ("epsilon", "eps"):
        return Evidence("epsilon", "")
    return Evidence("v_prediction", "") if "768-v" in metadata.get("modelspec.architecture", "") else None


def _marked(everything: Tensors) -> Evidence | None:
    return Evidence("v_prediction", "") if "v_pred" in everything else None


def _guessed(unet: Tensors, metadata: Mapping[str, str]) -> Evidence:
    """For SD 2.x alone, whose files come with either; its inpainting models predict epsilon."""
    if SEEN["cross_attention_dim"](unet) != 1024 or SEEN["in_channels"](unet) != 4:
        return Evidence("epsilon", "")
    if metadata.get("global_step") == BASE_STEP:
        return Evidence("epsilon", "its training step")
    bias = next((unet[key] for key in V_SIGNS if key in unet), None)
    if bias is None:
        return Evidence("v_prediction", "its family alone")
    deviation = float(bias.read().float().std(correction=0))
    return Evidence(PREDICTIONS[deviation > V_THRESHOLD], f"the deviation of a bias ({deviation:.3f})")
