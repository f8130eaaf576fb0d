"""Settings under the names of diffusers' call, as scripts write them, and NovelAI's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fromnoise.images.foreign.draft import Draft, damaged, dig, json_object, plain, short
from fromnoise.images.foreign.names import COMFYUI_SAMPLERS, COMFYUI_SCHEDULES, DIFFUSERS_SAMPLERS, NOVELAI_SAMPLERS
from fromnoise.images.settings import Settings

CALL: Mapping[str, str] = MappingProxyType(
    {
        "num_inference_steps": "steps",
        "steps": "steps",
        "guidance_scale": "guidance",
        "seed": "seed",
        "strength": "strength",
        "guidance_rescale": "rescale",
        "pag_scale": "pag",
        "model": "model",
        "model_id": "model",
        "base_model": "model",
        "pretrained_model_name_or_path": "model",
    }
)
"""The arguments of a diffusers pipeline, and what scripts call the seed and the model."""

SAMPLERS = {**COMFYUI_SAMPLERS, **DIFFUSERS_SAMPLERS}

PLACES = ("diffusers", "parameters", "metadata", "generation_data", "Comment", "Description", "comment")
"""Chunks in which scripts leave those as JSON."""

HARMLESS = re.compile(
    r"prompt|negative_prompt|width|height|size|scheduler|sampler|clip_skip|output_type|return_dict|num_images_per_prompt"
    r"|pipeline|_class_name|_diffusers_version|diffusers_version|torch_.*|date|time.*|device|generator|created.*|file.*"
)


def read_diffusers(texts: Mapping[str, str]) -> Settings | None:
    """From JSON in one of `PLACES`, or from chunks of those names themselves; None when there is nothing like it."""
    found = (json_object(texts[place]) for place in PLACES if place in texts)
    values = next((each for each in found if each is not None and _is_call(each)), None)
    if values is None:
        values = {key: value for key, value in texts.items() if key in (*CALL, "prompt", "negative_prompt", *SIZES)}
        if "prompt" not in values:
            return None
    return _read(values)


SIZES = ("width", "height")


def _is_call(values: Mapping[str, Any]) -> bool:
    return "prompt" in values and any(key in values for key in CALL)


def _read(values: Mapping[str, Any]) -> Settings:
    fooocus = str(values.get("metadata_scheme")).casefold() == "fooocus"
    draft = Draft("Fooocus", like="comfyui", weighting="comfyui") if fooocus else Draft("diffusers")
    prompt, negative = (_first(values.get(key)) for key in ("prompt", "negative_prompt"))
    draft.words(prompt, negative)
    draft.values = {key: value for key, value in plain(values).items() if key not in ("prompt", "negative_prompt")}
    for key, field in CALL.items():
        draft.take(field, values.get(key), key)
    if all(values.get(side) is not None for side in SIZES):
        draft.take("size", tuple(values[side] for side in SIZES), "width and height")
    draft.take("clip_skip", values.get("clip_skip") if fooocus else _counted(values.get("clip_skip")), "clip_skip")
    if values.get("strength") is not None:
        draft.need("the picture that it started from")
    _scheduler(draft, values)
    for key, value in values.items():
        if key not in CALL and not HARMLESS.fullmatch(key) and value not in (None, False, 0, "", [], {}):
            draft.unread[short(key)] = short(value)
    return draft.settings()


def _counted(skipped: Any) -> Any:
    """diffusers says how many layers are left out, where a Request counts from the end, 1 being the last."""
    return skipped + 1 if isinstance(skipped, int) else skipped


def _first(value: Any) -> Any:
    """diffusers takes one prompt or a list of them."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _scheduler(draft: Draft, values: Mapping[str, Any]) -> None:
    """A scheduler's class name, alone or in its config; or a sampler and a schedule by ComfyUI's names."""
    said = values.get("scheduler")
    name = values.get("sampler") or dig(said, "_class_name") or said
    if isinstance(name, str):
        draft.sampler(SAMPLERS.get(name, name), "scheduler", name)
    if dig(said, "use_karras_sigmas"):
        draft.schedule("Karras", "scheduler")
    elif isinstance(said, str) and said != name:
        draft.schedule(COMFYUI_SCHEDULES.get(said, said), "scheduler", said)


def read_novelai(texts: Mapping[str, str]) -> Settings | None:
    """NovelAI's words and numbers. Its models are its own, so the picture can't be drawn again anywhere else."""
    if texts.get("Software") != "NovelAI":
        return None
    values = json_object(texts.get("Comment", ""))
    if values is None:
        return damaged("NovelAI", "Comment")
    draft = Draft("NovelAI", like="a1111", weighting="a1111")
    draft.words(texts.get("Description") or values.get("prompt"), values.get("uc"))
    draft.values = {key: value for key, value in plain(values).items() if key not in ("prompt", "uc")}
    for key, field in (("seed", "seed"), ("steps", "steps"), ("scale", "guidance"), ("cfg_rescale", "rescale")):
        draft.take(field, values.get(key), key)
    if all(values.get(side) is not None for side in SIZES):
        draft.take("size", tuple(values[side] for side in SIZES), "width and height")
    if isinstance(values.get("sampler"), str):
        draft.sampler(NOVELAI_SAMPLERS.get(values["sampler"], values["sampler"]), "sampler", values["sampler"])
    schedule = values.get("noise_schedule")
    draft.schedule("Normal" if schedule in (None, "native") else schedule, "noise_schedule")
    draft.need(f"NovelAI's model {short(texts.get('Source', ''))!r}, and its brackets {{like these}}")
    return draft.settings()
