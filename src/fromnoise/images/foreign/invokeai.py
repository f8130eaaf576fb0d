"""InvokeAI's three ways to say how a picture was drawn, into a Request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fromnoise.images.foreign.draft import Draft, damaged, dig, json_object, plain, short
from fromnoise.images.foreign.names import INVOKEAI_SAMPLERS
from fromnoise.images.settings import Settings

TOOL = "InvokeAI"

DREAM: Mapping[str, str] = MappingProxyType(
    {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "cfg_scale", "A": "sampler", "f": "strength"}
)
"""The switches of the command that versions before 3 kept in `Dream`."""

FIELDS = (("seed", "seed"), ("steps", "steps"), ("cfg_scale", "guidance"), ("cfg_rescale_multiplier", "rescale"))

HARMLESS = re.compile(
    r"(positive|negative)_prompt|prompt|generation_mode|seed|steps|cfg_scale|cfg_rescale_multiplier|width|height|model"
    r"|scheduler|sampler|sampler_name|clip_skip|strength|app_.*|_?ui_.*|canvas_.*|created_by|rand_device|type|id|mode"
    r"|vae|loras|init_image|init_img|controlnets|ipAdapters|t2iAdapters|model_.*|hires_fix|variations|postprocessing"
    r"|imported_.*|image|is_intermediate|use_cache|orig_hash|C|W|H|S|s|A|f"
)
"""Keys that are read, or that change nothing about the picture."""

COMPEL = re.compile(r"\)\d|\)[+-]|\w[+-]{1,}(\s|,|$)|\"\s*,.*\)\.(and|blend|swap)|\.swap\(")
"""Marks of the prompt language that InvokeAI uses, whose brackets alone mean nothing."""


def read_invokeai(texts: Mapping[str, str]) -> Settings | None:
    """From whichever of the chunks `invokeai_metadata`, `sd-metadata` and `Dream` there is, the newest first."""
    if "invokeai_metadata" in texts:
        values = json_object(texts["invokeai_metadata"])
        return damaged(TOOL, "invokeai_metadata") if not values else _read(values)
    if "sd-metadata" in texts:
        values = json_object(texts["sd-metadata"])
        return damaged(TOOL, "sd-metadata") if values is None else _read_sd_metadata(values)
    dream = next((texts[key] for key in ("Dream", "dream") if key in texts), None)
    return None if dream is None else _read_dream(dream)


def _read(values: Mapping[str, Any]) -> Settings:
    draft = Draft(TOOL)
    draft.words(values.get("positive_prompt"), values.get("negative_prompt"))
    model = values.get("model")
    name = next((dig(model, key) for key in ("name", "model_name") if dig(model, key) is not None), None)
    draft.values = {key: value for key, value in plain(values).items() if not key.endswith("_prompt")}
    draft.values |= {"model": str(name)} if name is not None else {}
    draft.take("model", name, "model")
    if isinstance(values.get("clip_skip"), int) and values["clip_skip"] > 0:
        draft.take("clip_skip", values["clip_skip"] + 1, "clip_skip")
    _numbers(draft, values, values.get("scheduler"))
    loras = values.get("loras")
    for lora in loras if isinstance(loras, list) else ():
        named = next((each for path in LORAS if (each := dig(lora, *path)) is not None), "?")
        draft.need(f"the LoRA {short(named)!r}" + (f" at {short(dig(lora, 'weight'))}" if dig(lora, "weight") else ""))
    for key in ("controlnets", "ipAdapters", "t2iAdapters"):
        if values.get(key):
            draft.need(f"the pictures and models of its {key}")
    if values.get("vae"):
        draft.need(f"the autoencoder {short(dig(values['vae'], 'name') or dig(values['vae'], 'model_name'))!r}")
    return draft.settings()


LORAS = (("model", "name"), ("lora", "model_name"), ("model", "model_name"))


def _numbers(draft: Draft, values: Mapping[str, Any], sampler: Any) -> None:
    """What all three ways have in common."""
    for key, field in FIELDS:
        draft.take(field, values.get(key), key)
    if values.get("width") is not None and values.get("height") is not None:
        draft.take("size", (values["width"], values["height"]), "width and height")
    if isinstance(sampler, str):
        _sampler(draft, sampler)
    mode = str(values.get("generation_mode") or values.get("type") or "")
    if mode.endswith(("img2img", "inpaint", "outpaint")) or values.get("strength") is not None:
        draft.take("strength", values.get("strength"), "strength")
        draft.need("the picture that it started from")
    if mode.endswith(("inpaint", "outpaint")):
        draft.need("the mask")
    if COMPEL.search(f"{draft.prompt}\n{draft.negative}"):
        draft.unread["prompt"] = "weights in InvokeAI's own prompt language; taken as letters"
    for key, value in values.items():
        if value not in (None, False, 0, "", [], {}) and not HARMLESS.fullmatch(key):
            draft.unread[short(key)] = short(value)


def _sampler(draft: Draft, name: str) -> None:
    """`_k` at the end means Karras' levels; otherwise the model's scheduler config decides, as here."""
    plain_name = name.removesuffix("_k")
    draft.sampler(INVOKEAI_SAMPLERS.get(plain_name, plain_name), "scheduler", name)
    draft.schedule("Karras" if plain_name != name else None, "scheduler", name)


def _read_sd_metadata(values: Mapping[str, Any]) -> Settings:
    """Versions 2.x: one picture's settings under `image`, its prompts a list."""
    image = values.get("image")
    if not isinstance(image, dict):
        return damaged(TOOL, "sd-metadata")
    draft = Draft(TOOL)
    prompts = image.get("prompt")
    parts = [dig(each, "prompt") for each in prompts] if isinstance(prompts, list) else [prompts]
    draft.words(*split_negative(" ".join(each for each in parts if isinstance(each, str))))
    draft.values = plain({**image, "model": values.get("model_weights")})
    draft.take("model", values.get("model_weights"), "model_weights")
    draft.take("model_hash", values.get("model_hash"), "model_hash")
    _numbers(draft, image, image.get("sampler"))
    return draft.settings()


def _read_dream(text: str) -> Settings:
    """Versions 1.x: the command line that drew it, `"a wolf [blurry]" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A k_lms`."""
    command = re.fullmatch(r'\s*"(.*)"([^"]*)', text, re.DOTALL)
    if command is None:
        return damaged(TOOL, "Dream")
    switches = dict(re.findall(r"(?:^|\s)-(\w)\s*([^\s-]\S*)", command[2]))
    values = {DREAM[key]: value for key, value in switches.items() if key in DREAM}
    draft = Draft(TOOL)
    draft.words(*split_negative(command[1]))
    draft.values = plain(values)
    _numbers(draft, values, values.get("sampler"))
    return draft.settings()


def split_negative(prompt: str) -> tuple[str, str]:
    """Versions before 3 kept the negative prompt in square brackets inside the prompt."""
    negative = ", ".join(each.strip(" ,") for each in re.findall(r"\[([^\[\]]*)\]", prompt))
    return " ".join(re.sub(r"\[[^\[\]]*\]", " ", prompt).split()), negative
