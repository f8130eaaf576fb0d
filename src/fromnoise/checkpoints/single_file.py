"""The single file: a whole checkpoint, or one part of it, under CompVis' or SGM's keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch

from fromnoise.checkpoints.checkpoint import QUANTISATION, Checkpoint, Part
from fromnoise.checkpoints.identity import identify, statement
from fromnoise.checkpoints.places import (
    CLIP_PLACE,
    CONTROLNET_PLACE,
    FILE_EXTRAS,
    LONE_VAE_PLACE,
    OPENCLIP_PLACE,
    SDXL_CONTROLNET_PLACE,
    SDXL_TEXT_2_PLACE,
    SDXL_TEXT_PLACE,
    TINY_PLACE,
    UNET_PLACE,
    VAE_PLACE,
    Place,
    find_places,
)
from fromnoise.checkpoints.report import first_of
from fromnoise.checkpoints.stored import Stored, Tensors
from fromnoise.checkpoints.tensor_file import Told, write_stored
from fromnoise.checkpoints.tokenizers import unpacked
from fromnoise.checkpoints.weights import Weights, open_weights
from fromnoise.models.published import Family
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.log import warn

VOCABULARY = 49408
"""Pieces in CLIP's published vocabulary."""

EMBEDDING = "text_model.embeddings.token_embedding.weight"

TOKENIZERS = MappingProxyType({"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"})

WRITTEN = MappingProxyType(
    {place.part: place for place in (UNET_PLACE, CONTROLNET_PLACE, VAE_PLACE, CLIP_PLACE, SDXL_TEXT_2_PLACE)}
)
"""Where parts go in a file that is written, but for what `written_place` says otherwise."""

ADAPTER_SIGNS = ("lora_", ".lora.", "hada_w", "lokr_w")
"""What keys of a LoRA, LoHa or LoKr have in them, in any layout."""

ARCHITECTURES: Mapping[str, str] = MappingProxyType(
    {
        "sd1": "stable-diffusion-v1",
        "lcm": "stable-diffusion-v1",
        "sd2-base": "stable-diffusion-v2-512",
        "sd-turbo": "stable-diffusion-v2-512",
        "sd2": "stable-diffusion-v2-768-v",
        "sdxl": "stable-diffusion-xl-v1-base",
        "sdxl-turbo": "stable-diffusion-xl-v1-base",
    }
)
"""What the ModelSpec standard calls the families: https://github.com/Stability-AI/ModelSpec"""


def open_file(path: Path, family: str | None = None, prediction: str | None = None) -> Checkpoint:
    """A checkpoint, or a lone part, in one file. See `opening.open_checkpoint`."""
    weights = _with_other_half(open_weights(path))
    places = tuple(find_places(weights.tensors))
    if not places:
        keys = first_of(weights.tensors)
        if any(sign in key for key in weights.tensors for sign in ADAPTER_SIGNS):
            raise FromnoiseError(f"{path} is an adapter, not a checkpoint; draw with it as --lora {path}")
        raise FromnoiseError(f"{path} is no Stable Diffusion checkpoint, nor a part of one; its first keys: {keys}")
    found = identify(weights, places, family, prediction)
    left = dict(weights.tensors)
    parts = {place.part: _part(weights, place, found, left) for place in places}
    return Checkpoint(
        path=path,
        family=found.name,
        parts=parts,
        scheduler=dict(found.scheduler),
        tokenizers=_tokenizers(path, parts, found),
        extras=_extras(path, found, places, left),
        metadata=weights.metadata,
        pipeline_class=found.pipeline_class,
        zero_negative=found.zero_negative,
    )


def write_file(
    path: Path,
    checkpoint: Checkpoint,
    *,
    keep_extra: bool = False,
    overwrite: bool = False,
    told: Told = lambda count: None,
) -> None:
    """Write a checkpoint as one safetensors file, tensor by tensor; every one keeps its dtype.

    `keep_extra` keeps declared left-overs that have a name in this layout. Raises UsageError when `path` exists and
    may not be replaced, FromnoiseError for a tensor that the layout has no name for.
    """
    if any(QUANTISATION in part.config for part in checkpoint.parts.values()):
        raise FromnoiseError(
            f"{checkpoint.path} is in int8, which only a folder can hold; choose a name without ending"
        )
    tensors = _marked(checkpoint, checkpoint.extras if keep_extra else {})
    for part in checkpoint.parts.values():
        place = written_place(part, checkpoint)
        named = _named(part, place)
        if keep_extra:
            named |= place.keys.to_folder(part.extras, part.config).extras
        tensors |= {place.prefix + key: each for key, each in named.items()}
    write_stored(path, tensors, _metadata(path, checkpoint), overwrite=overwrite, told=told)


def _named(part: Part, place: Place) -> dict[str, Stored]:
    """A part's tensors under the single file's keys, without the prefix."""
    mapped = place.keys.to_single(part.tensors, part.config)
    if mapped.left_over:
        raise FromnoiseError(
            f"{part.source}: the single-file layout has no name for {len(mapped.left_over)} keys of its "
            f"{part.name} ({first_of(mapped.left_over)})"
        )
    return mapped.tensors


def written_place(part: Part, checkpoint: Checkpoint) -> Place:
    """Where a part goes in the file that is written.

    As published ones do, a lone autoencoder has no prefix, and tiny ones and SDXL's ControlNets have diffusers' keys.
    """
    if part.class_name == "AutoencoderTiny":
        return TINY_PLACE
    if part.name == "vae" and checkpoint.is_lone:
        return LONE_VAE_PLACE
    if part.name == "controlnet" and part.config.get("addition_embed_type"):
        return SDXL_CONTROLNET_PLACE
    if part.name == "text_encoder" and "text_encoder_2" in checkpoint.parts:
        return SDXL_TEXT_PLACE
    if part.name == "text_encoder" and part.config.get("hidden_act") == "gelu":
        return OPENCLIP_PLACE
    return WRITTEN[part.name]


def _part(weights: Weights, place: Place, family: Family, left: dict[str, Stored]) -> Part:
    """One part of the file; its keys are taken out of `left`."""
    if not family.parts.get(place.part):
        raise FromnoiseError(f"{weights.path} has a {place.part}, which no {family.title} checkpoint has")
    config = dict(family.parts[place.part])
    mapped = place.keys.to_folder(place.within(weights.tensors), config)
    unmapped = {place.prefix + key for key in (*mapped.left_over, *mapped.extras)}
    for key in [key for key in left if key.startswith(place.prefix) and key not in unmapped]:
        del left[key]
    return Part(place.part, config, weights.path, family.name, mapped.tensors)


def _extras(path: Path, family: Family, places: Sequence[Place], left: Tensors) -> Tensors:
    """The left-overs, which must all be declared as harmless; FromnoiseError when there are others."""
    declared = FILE_EXTRAS.to_folder(left, {}).extras
    for place in places:
        found = place.keys.to_folder(place.within(left), family.parts[place.part]).extras
        declared |= {place.prefix + key: each for key, each in found.items()}
    unknown = [key for key in left if key not in declared]
    if unknown:
        keys = f"{len(unknown)} keys ({first_of(unknown)})"
        raise FromnoiseError(f"{path} looks like {family.title}, which has no place for {keys}")
    return declared


def _with_other_half(weights: Weights) -> Weights:
    """TAESD's author publishes encoder and decoder in two files: put the other one, which lies beside, to this one."""
    half = next((each for each in ("encoder", "decoder") if _is_half(weights, each)), None)
    if half is None:
        return weights
    other = "decoder" if half == "encoder" else "encoder"
    beside = weights.path.with_name(weights.path.name.replace(half, other))
    if beside == weights.path or not beside.is_file():
        raise FromnoiseError(f"{weights.path} is a tiny autoencoder's {half} alone; put the {other}'s file beside it")
    halves = {half: weights.tensors, other: open_weights(beside).tensors}
    joined = {f"{name}.{key}": each for name, tensors in halves.items() for key, each in tensors.items()}
    return Weights(weights.path, joined)


def _is_half(weights: Weights, half: str) -> bool:
    """The encoder starts with a convolution, the decoder with a clamp, which has no weights."""
    first, block = ("0.weight", "1.conv.0.weight") if half == "encoder" else ("1.weight", "3.conv.0.weight")
    return first in weights.tensors and block in weights.tensors


def _tokenizers(path: Path, parts: Mapping[str, Part], family: Family) -> dict[str, Path | None]:
    """By folder name: unpacked where the file states its own, else None for CLIP's."""
    found: dict[str, Path | None] = {}
    for part, name in TOKENIZERS.items():
        if part in parts:
            own = family.tokenizers.get(name)
            found[name] = unpacked(own) if own else None
            words = parts[part].tensors.get(EMBEDDING)
            pieces = (*words.shape, 0)[0] if words else VOCABULARY
            if not own and pieces != VOCABULARY:
                warn(f"{path} knows {pieces} pieces of words, CLIP {VOCABULARY}, and the file does not say which")
    return found


def _marked(checkpoint: Checkpoint, extras: Tensors) -> dict[str, Stored]:
    """The extras, and the empty tensors by which other tools know SDXL files that predict v or have zero-terminal SNR.

    A mark that the scheduler contradicts, because a person overruled it, is not kept.
    """
    scheduler = checkpoint.scheduler
    marks = {
        "v_pred": scheduler.get("prediction_type") == "v_prediction",
        "ztsnr": bool(scheduler.get("rescale_betas_zero_snr")),
    }
    kept = {key: each for key, each in extras.items() if marks.get(key, True)}
    wanted = [key for key, marked in marks.items() if marked and "text_encoder_2" in checkpoint.parts]
    return {**{key: Stored.of(torch.empty(0)) for key in wanted}, **kept}


def _metadata(path: Path, checkpoint: Checkpoint) -> dict[str, str]:
    """What was there, our own statement, and what ModelSpec wants to be said where it has a name for the family."""
    stated = {**checkpoint.metadata, "format": "pt", **statement(checkpoint)}
    if "unet" not in checkpoint.parts or checkpoint.family not in ARCHITECTURES:
        return stated
    predicts_v = checkpoint.scheduler.get("prediction_type") == "v_prediction"
    spec = {
        "sai_model_spec": "1.0.0",
        "architecture": ARCHITECTURES[checkpoint.family],
        "implementation": "sgm",
        "title": path.stem,
    }
    kept = {f"modelspec.{name}": stated.get(f"modelspec.{name}", value) for name, value in spec.items()}
    return {**stated, **kept, "modelspec.prediction_type": "v" if predicts_v else "epsilon"}
