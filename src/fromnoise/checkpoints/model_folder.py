"""The diffusers folder: one folder a part, an index that names their classes, a scheduler and tokenizers beside."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fromnoise.checkpoints.checkpoint import (
    CLASS,
    CLASSES,
    PARTS,
    PIPELINE_FIELDS,
    SCHEDULER_FIELDS,
    Checkpoint,
    Part,
    class_of,
    require_kinds,
)
from fromnoise.checkpoints.folder import DIFFUSERS_WEIGHTS, read_json, write_json
from fromnoise.checkpoints.identity import DIGEST, OWN
from fromnoise.checkpoints.keymap import KeyMap
from fromnoise.checkpoints.layouts import CLIP_FOLDER, FOLDER, VAE_FOLDER
from fromnoise.checkpoints.recognise import family_of_folder, named_family, refuse_refiner, seen_in_config
from fromnoise.checkpoints.report import first_of
from fromnoise.checkpoints.tensor_file import Told, write_stored
from fromnoise.checkpoints.tokenizers import clip_texts, published_fields, read_texts, write_texts
from fromnoise.checkpoints.weights import find_weights, open_weights
from fromnoise.runtime.errors import FromnoiseError, UsageError

MODEL_INDEX = "model_index.json"
SCHEDULER = Path("scheduler", "scheduler_config.json")
TOKENIZERS = ("tokenizer", "tokenizer_2")
EXTRAS = "extras.safetensors"
"""Where a converted folder keeps what only the single file has a name for."""

WRITTEN_ANEW = (OWN, DIGEST, "format")
"""Metadata that every single file gets when it is written."""

INDEX: Mapping[str, Any] = {
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
"""The index of a plain Stable Diffusion folder."""

SDXL_PIPELINE = "StableDiffusionXLPipeline"

ZERO_NEGATIVE = "force_zeros_for_empty_prompt"
"""In SDXL's index: an empty negative prompt is zeros; otherwise it is encoded like any other."""

OVERLOOKED = frozenset(
    {
        "CLIPFeatureExtractor",
        "CLIPImageProcessor",
        "CLIPTokenizer",
        "CLIPTokenizerFast",
        "CLIPVisionModelWithProjection",
        "StableDiffusionSafetyChecker",
    }
)
"""Classes in published indexes that drawing does not need as weights."""

FOLDER_MAPS: Mapping[str, KeyMap] = {
    "AutoencoderKL": VAE_FOLDER,
    "CLIPTextModel": CLIP_FOLDER,
    "CLIPTextModelWithProjection": CLIP_FOLDER,
}
"""Layouts of folders whose parts were spelt otherwise once; the others keep every key."""


def open_folder(path: Path, family: str | None = None, prediction: str | None = None) -> Checkpoint:
    """A checkpoint, or a lone part, in a folder. See `opening.open_checkpoint`."""
    if not (path / MODEL_INDEX).is_file():
        return _open_lone(path)
    index = read_json(path / MODEL_INDEX)
    configs = {name: _config(path / name, kind) for name, kind in _indexed(path, index)}
    refuse_refiner(path, seen_in_config(configs.get("unet", {})))
    scheduler = read_json(path / SCHEDULER)
    require_kinds(path / SCHEDULER, SCHEDULER_FIELDS, scheduler)
    require_kinds(path / MODEL_INDEX, PIPELINE_FIELDS, index)
    if prediction is not None:
        scheduler["prediction_type"] = prediction
    name = named_family(family).name if family else family_of_folder(configs, scheduler)
    parts = {each: _part(path / each, config, each, name) for each, config in configs.items()}
    kept = open_weights(path / EXTRAS) if (path / EXTRAS).is_file() else None
    return Checkpoint(
        path=path,
        family=name,
        parts=parts,
        scheduler=scheduler,
        tokenizers={name: path / name for name in TOKENIZERS if (path / name).is_dir()},
        extras=kept.tensors if kept else {},
        metadata=kept.metadata if kept else {},
        pipeline_class=index.get(CLASS),
        zero_negative=index.get(ZERO_NEGATIVE, True),
    )


def write_folder(
    folder: Path, checkpoint: Checkpoint, *, keep_extra: bool = False, told: Told = lambda count: None
) -> None:
    """Write a checkpoint as a folder that diffusers loads; a lone part without an index. Every dtype is kept.

    `keep_extra` keeps declared left-overs: those of a single file by their keys there, with what its metadata said, in
    a file of their own.
    """
    lone = checkpoint.is_lone and not checkpoint.pipeline_class
    for name, part in checkpoint.parts.items():
        write_part(folder if lone else folder / name, part, keep_extra=keep_extra, told=told)
    if not lone:
        for name, tokenizer in checkpoint.tokenizers.items():
            published = published_fields(checkpoint.family, name)
            write_texts(folder / name, read_texts(tokenizer) if tokenizer else clip_texts(published))
        write_json(folder / SCHEDULER, checkpoint.scheduler)
        write_json(folder / MODEL_INDEX, model_index(checkpoint))
    said = {name: value for name, value in checkpoint.metadata.items() if name not in WRITTEN_ANEW}
    if keep_extra and (checkpoint.extras or said):
        write_stored(folder / EXTRAS, checkpoint.extras, said, told=told)


def write_part(folder: Path, part: Part, *, keep_extra: bool = False, told: Told = lambda count: None) -> None:
    """Write one part: its config.json, and its weights under the name that its library looks for."""
    library, _ = CLASSES[part.class_name]
    write_json(folder / "config.json", part.config)
    file = "model.safetensors" if library == "transformers" else DIFFUSERS_WEIGHTS
    tensors = {**part.tensors, **(part.extras if keep_extra else {})}
    write_stored(folder / file, tensors, {"format": "pt"}, told=told)


def model_index(checkpoint: Checkpoint) -> dict[str, Any]:
    """The index for a checkpoint's parts, as diffusers reads it."""
    two = "text_encoder_2" in checkpoint.parts
    kind = checkpoint.pipeline_class or (SDXL_PIPELINE if two else INDEX["_class_name"])
    optional = {name: value for name, value in INDEX.items() if name.startswith("_") or value in ([None, None], False)}
    if two:
        optional = {name: value for name, value in optional.items() if "safety" not in name}
        optional[ZERO_NEGATIVE] = checkpoint.zero_negative
    classes = {name: [CLASSES[part.class_name][0], part.class_name] for name, part in checkpoint.parts.items()}
    tokenizers = {name: ["transformers", "CLIPTokenizer"] for name in checkpoint.tokenizers}
    scheduler = {"scheduler": ["diffusers", checkpoint.scheduler.get("_class_name", INDEX["scheduler"][1])]}
    return {**optional, "_class_name": kind, **dict(sorted({**classes, **tokenizers, **scheduler}.items()))}


def write_model_folder(folder: Path, parts: Mapping[str, Path], scheduler: Mapping[str, Any]) -> None:
    """Copy the part folders given by name into `folder`; write the index and the scheduler's config beside them."""
    for name, source in parts.items():
        if source.resolve() != (folder / name).resolve():
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
    write_json(folder / SCHEDULER, scheduler)
    write_json(folder / MODEL_INDEX, INDEX)


def _open_lone(path: Path) -> Checkpoint:
    """A folder that is one part; UsageError when it is none."""
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    if class_of(config) not in CLASSES:
        raise UsageError(f"no Stable Diffusion folder at {path} (it has no {MODEL_INDEX})")
    name = CLASSES[class_of(config)][1]
    family = family_of_folder({name: config}, {})
    return Checkpoint(path, family, {name: _part(path, config, name, family)})


def _indexed(path: Path, index: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parts that an index names, with their classes; FromnoiseError for a name or class that is not supported.

    Parts are written under these names, so that any other, a path say, could lead out of the folder.
    """
    found = []
    for name, value in index.items():
        match value:
            case [_, str(kind)] if kind in CLASSES and name in PARTS:
                found.append((name, kind))
            case [_, str(kind)] if kind in CLASSES:
                raise FromnoiseError(
                    f"{path}: its {MODEL_INDEX} names {name!r}, which is none of {', '.join(sorted(PARTS))}"
                )
            case [_, str(kind)] if kind not in OVERLOOKED and not kind.endswith("Scheduler"):
                raise FromnoiseError(f"{path}: its {name} is a {kind}, which is not supported (Stable Diffusion is)")
    return found


def _config(folder: Path, kind: str) -> dict[str, Any]:
    """A part's config, with the class that the index names where it names none itself."""
    config = read_json(folder / "config.json")
    if class_of(config) in CLASSES:
        return config
    return (
        {**config, "architectures": [kind]} if CLASSES[kind][0] == "transformers" else {**config, "_class_name": kind}
    )


def _part(folder: Path, config: dict[str, Any], name: str, family: str) -> Part:
    weights = find_weights(folder)
    mapped = FOLDER_MAPS.get(class_of(config), FOLDER).to_folder(weights.tensors, config)
    if mapped.left_over:
        raise FromnoiseError(f"{weights.path} spells {first_of(mapped.left_over)} twice")
    return Part(name, config, weights.path, family, mapped.tensors, mapped.extras)
