"""What a single file is: a Family, with the configs and the scheduler that the file has no room for.

A file that fromnoise wrote says so itself; of any other, the weights show it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fromnoise.checkpoints.checkpoint import (
    CLASS,
    PIPELINE_FIELDS,
    SCHEDULER_FIELDS,
    UNKNOWABLE,
    Checkpoint,
    class_of,
    require_kinds,
)
from fromnoise.checkpoints.folder import read_json
from fromnoise.checkpoints.places import FOLDER_LAYOUTS, TINY_PLACE, Place
from fromnoise.checkpoints.recognise import (
    CUSTOM,
    candidates,
    family_of_file,
    named_family,
    prediction_of_file,
    seen_in,
)
from fromnoise.checkpoints.tokenizers import checked_texts, own_texts
from fromnoise.checkpoints.weights import Weights
from fromnoise.models.published import FAMILIES, TAESD, VAE_SD, Family
from fromnoise.runtime.errors import FromnoiseError

Json = Mapping[str, Any]

OWN = "fromnoise.checkpoint"
"""Where in a file's metadata its configs, scheduler and own tokenizers stand."""

DIGEST = "fromnoise.sha256"
"""The SHA-256 of that statement: a wrong scaling factor would not show otherwise."""

ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
"""What the mark `ztsnr` in a file means for its scheduler (Lin et al. 2023)."""


def identify(weights: Weights, places: Sequence[Place], name: str | None, prediction: str | None) -> Family:
    """What the file is, each part's config included; `name` and `prediction` overrule what it seems to be.

    Raises FromnoiseError when it is of no known family.
    """
    found = stated(weights) if name is None else None
    found = found or _lone_config(weights, places) or _recognised(weights, places, name, prediction)
    if prediction is not None:
        found = replace(found, scheduler={**found.scheduler, "prediction_type": prediction})
    return found


def statement(checkpoint: Checkpoint) -> dict[str, str]:
    """The metadata that `stated` reads back: configs, scheduler, what tokenizers have beside CLIP's vocabulary."""
    own = {name: folder for name, folder in checkpoint.tokenizers.items() if folder}
    text = json.dumps(
        {
            "family": checkpoint.family,
            "pipeline_class": checkpoint.pipeline_class,
            "parts": {name: part.config for name, part in checkpoint.parts.items()},
            "scheduler": checkpoint.scheduler,
            "tokenizers": {name: own_texts(folder) for name, folder in own.items()},
            "zero_negative": checkpoint.zero_negative,
        },
        ensure_ascii=False,
    )
    return {OWN: text, DIGEST: _digest(text)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def stated(weights: Weights) -> Family | None:
    """What a file written by fromnoise says about itself; None for other files, FromnoiseError for a damaged one."""
    if OWN not in weights.metadata and DIGEST not in weights.metadata:
        return None
    if weights.metadata.get(DIGEST) != _digest(weights.metadata.get(OWN, "")):
        raise FromnoiseError(f"{weights.path} is damaged: its metadata {OWN} is not as it was written")
    try:
        own = json.loads(weights.metadata[OWN])
        json.dumps(own, ensure_ascii=False).encode()  # half a surrogate pair fails here
        parts = {str(name): dict(config) for name, config in own["parts"].items()}
        name, pipeline_class, scheduler = str(own["family"]), own["pipeline_class"], dict(own["scheduler"])
        tokenizers = {str(each): checked_texts(texts) for each, texts in own["tokenizers"].items()}
        zero = bool(own.get("zero_negative", True))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FromnoiseError(f"{weights.path}: its metadata {OWN} is damaged ({error!r})") from error
    require_kinds(weights.path, SCHEDULER_FIELDS, scheduler)
    require_kinds(weights.path, PIPELINE_FIELDS, {CLASS: pipeline_class})
    return Family(name, name, pipeline_class, parts, scheduler, tokenizers, zero)


def _lone_config(weights: Weights, places: Sequence[Place]) -> Family | None:
    """A file in the folder layout whose config.json still lies beside it."""
    beside = weights.path.parent / "config.json"
    if len(places) != 1 or places[0].prefix or places[0].keys not in FOLDER_LAYOUTS or not beside.is_file():
        return None
    config = read_json(beside)
    if not class_of(config):
        return None
    return Family(CUSTOM, class_of(config), None, {places[0].part: config})


def _recognised(weights: Weights, places: Sequence[Place], name: str | None, prediction: str | None) -> Family:
    """The published family that the weights show, its configs as they are in this very file.

    Its `tokenizers` are left out: here they are the files of a vocabulary that is not CLIP's.
    """
    denoiser = next((place for place in places if place.part in ("unet", "controlnet")), None)
    if denoiser is None:
        return replace(named_family(name), tokenizers={}) if name else _lone(weights, places)
    tensors = denoiser.within(weights.tensors)
    prediction = prediction or prediction_of_file(weights.path, tensors, weights.tensors, weights.metadata)
    found = (
        named_family(name)
        if name
        else family_of_file(weights.path, denoiser.part, tensors, prediction, weights.metadata)
    )
    parts = {**found.parts, **{place.part: _as_seen(weights, place, found) for place in places}}
    return replace(found, parts=parts, scheduler=_scheduler(found.scheduler, prediction, weights), tokenizers={})


def _as_seen(weights: Weights, place: Place, family: Family) -> Json:
    """A part's config, the fields that its weights show taken from them."""
    if place.part not in ("unet", "controlnet"):
        return family.parts.get(place.part) or _lone(weights, [place]).parts[place.part]
    seen = seen_in(place.within(weights.tensors))
    others = candidates(place.part, seen)
    config = family.parts.get(place.part) or (others[0].parts[place.part] if others else {})
    return {**config, **{field: value for field, value in seen.items() if config.get(field) != value}}


def _scheduler(scheduler: Json, prediction: str, weights: Weights) -> dict[str, Any]:
    if not scheduler:
        return {}
    return {**scheduler, "prediction_type": prediction, **(ZERO_SNR if "ztsnr" in weights.tensors else {})}


def _lone(weights: Weights, places: Sequence[Place]) -> Family:
    """A file without a U-Net: an autoencoder or a text encoder."""
    configs = {place.part: _lone_part(weights, place) for place in places}
    name = "taesd" if configs.get("vae") is TAESD else CUSTOM
    return Family(name, " and ".join(configs), None, configs)


def _lone_part(weights: Weights, place: Place) -> Json:
    if place.part == "vae":
        tiny = TINY_PLACE.sign in weights.tensors or "decoder.1.weight" in weights.tensors
        return TAESD if tiny else {name: value for name, value in VAE_SD.items() if name not in UNKNOWABLE}
    width = (0, *weights.tensors[place.prefix + place.sign].shape)[-1]
    configs = (config for family in FAMILIES.values() for config in family.parts.values())
    found = next((config for config in configs if config.get("hidden_size") == width), None)
    if found is None:
        raise FromnoiseError(f"{weights.path}: a text encoder of width {width} is of no family that is known")
    return found
