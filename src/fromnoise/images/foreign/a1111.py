"""The "parameters" text into a Request: the AUTOMATIC1111 web UI's, and that of tools which write the same text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from fromnoise.images.foreign.draft import Draft, short
from fromnoise.images.foreign.names import (
    A1111_OWN_SCHEDULES,
    A1111_SAMPLERS,
    A1111_SCHEDULES,
    SCHEDULE_LABELS,
    UPSCALER_LABELS,
)
from fromnoise.images.parameters import MISSING_MEANS, Parameters
from fromnoise.images.settings import OWN, Settings


class Dialect(NamedTuple):
    """A tool that writes the text: how it weighs words, and whose first steps it takes."""

    tool: str
    like: str = "a1111"
    weighting: str = "a1111"


A1111, FORGE = Dialect("AUTOMATIC1111"), Dialect("Forge")
SD_NEXT = Dialect("SD.Next", like="diffusers", weighting="comfyui")
COMFYUI, OURS = Dialect("ComfyUI", like="comfyui", weighting="comfyui"), Dialect(OWN, like="diffusers")

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "Steps": "steps",
        "CFG scale": "guidance",
        "Seed": "seed",
        "Size": "size",
        "Variation seed": "variation_seed",
        "Variation seed strength": "variation",
        "Tiling": "tile",
        "Mask blur": "mask_blur",
        "Masked area padding": "mask_padding",
        "Model": "model",
        "Model hash": "model_hash",
        "CFG rescale": "rescale",
        "CFG interval": "interval",
        "APG": "apg",
        "Dynamic thresholding": "threshold",
        "PAG scale": "pag",
        "Weighting": "weighting",
        "Like": "like",
    }
)
"""Keys that are a Request's fields; those after "Model hash" are our own, but for SD.Next's "CFG rescale"."""

EMPHASES: Mapping[str, str] = MappingProxyType({"Original": "a1111", "None": "none"})

HARMLESS = re.compile(
    r"Version|User|App|Backend|Pipeline|Operations|Parser|Comment|Batch.*|Index|Time|Created Date|Denoising strength"
    r"|Clip skip|RNG|Sampler|Schedule type|Sampler (sigma|spacing)|Emphasis|Sheet|.*[Hh]ash(es)?|Civitai .*|Pad conds.*"
    r"|Inpaint area"
)
"""Keys that are read elsewhere, or that change nothing about the picture."""

HIRES = re.compile(r"(Hires|HiRes|First pass) .*|Refine")
HIRES_READ = ("Hires upscale", "Hires resize", "Hires steps", "Hires upscaler")
HIRES_STRENGTH = "0.7"
"""What the web UI's second pass had for Denoising strength unless told otherwise."""

BEGUN: Mapping[str, str] = MappingProxyType(
    {
        "First steps": "steps",
        "First prompt": "prompt",
        "First negative prompt": "negative",
        "First CFG scale": "guidance",
    }
)
"""Our own keys about the first steps of a branch, and the fields that they are."""

HASHES: Mapping[str, str] = MappingProxyType({"Lora hashes": "lora", "TI hashes": "embedding"})
MASKS = re.compile(r"Mask .*|Masked .*|Inpaint area|Conditional mask weight")

_LORA = re.compile(r"<(?:lora|lyco):([^:<>]{1,200}):?([^:<>]{0,200})[^<>]{0,200}>")


def read_parameters(found: Parameters) -> Settings:
    """The Request that a text comes to. A text with words alone is a prompt."""
    said = found.settings
    dialect = dialect_of(said)
    draft = Draft(dialect.tool, like=dialect.like, weighting=dialect.weighting)
    draft.values = dict(said)
    draft.words(found.prompt, found.negative)
    for key, field in FIELDS.items():
        draft.take(field, said.get(key), key)
    if said:
        _sampler(draft, said, dialect)
        _emphasis(draft, said)
        _clip_skip(draft, said)
        _hires(draft, said)
        _begun(draft, said)
        _hashes(draft, said)
        _noise(draft, said, dialect)
        _parts(draft, said)
        _rest(draft, said)
    return draft.settings()


def dialect_of(said: Mapping[str, str]) -> Dialect:
    """Who wrote a settings line, by what each of them writes about itself."""
    version, app = said.get("Version", ""), said.get("App", "")
    if version.startswith(OWN) or "Sheet" in said:
        return OURS
    if app == "SD.Next" or "Backend" in said:
        return SD_NEXT
    if version == "ComfyUI":
        return COMFYUI
    return FORGE if re.match(r"f\d|neo|forge", version, re.IGNORECASE) else A1111


def split_schedule(sampler: str) -> tuple[str, str | None]:
    """`DPM++ 2M Karras`, as versions before 1.9 wrote it, as sampler and schedule; None where it says none."""
    for name in sorted(A1111_SCHEDULES, key=len, reverse=True):
        if sampler.casefold().endswith(f" {name}"):
            return sampler[: -len(name) - 1], name
    return sampler, None


def _sampler(draft: Draft, said: Mapping[str, str], dialect: Dialect) -> None:
    if "Sampler" not in said:
        return
    sampler, schedule = split_schedule(said["Sampler"])
    label = A1111_SAMPLERS.get(sampler.casefold(), sampler)
    draft.sampler(label, "Sampler", said["Sampler"])
    schedule = (schedule or said.get("Schedule type", "")).casefold()
    if dialect is OURS:
        draft.schedule(said.get("Schedule type"), "Schedule type")
    elif dialect is SD_NEXT:
        draft.schedule(_sd_next_schedule(said), "Sampler sigma")
    elif schedule in ("", "automatic") and label in A1111_OWN_SCHEDULES:
        draft.schedule(A1111_OWN_SCHEDULES[label], "Schedule type")
    else:
        draft.schedule(A1111_SCHEDULES.get(schedule or "automatic", schedule), "Schedule type")


def _sd_next_schedule(said: Mapping[str, str]) -> str | None:
    """SD.Next leaves it to the model unless told: by diffusers' spacings or by k-diffusion's sigmas."""
    choices = (said.get(key, "default").casefold() for key in ("Sampler sigma", "Sampler spacing"))
    return next((each for each in choices if each in SCHEDULE_LABELS), None)


def _emphasis(draft: Draft, said: Mapping[str, str]) -> None:
    emphasis = said.get("Emphasis")
    if emphasis is not None and emphasis in EMPHASES:
        draft.take("weighting", EMPHASES[emphasis])
    elif emphasis is not None:
        draft.unread["Emphasis"] = short(emphasis)
    if said.get("Parser", "").casefold() == "a1111":
        draft.take("weighting", "a1111")


def _clip_skip(draft: Draft, said: Mapping[str, str]) -> None:
    """1 is what the line means when it says nothing, and then SDXL's is another: the model's own."""
    if said.get("Clip skip", "1") not in ("0", "1"):
        draft.take("clip_skip", said["Clip skip"], "Clip skip")


def _hires(draft: Draft, said: Mapping[str, str]) -> None:
    """The second pass: its size, what enlarges, its strength, and its steps, which are as many as the first's."""
    scale = said.get("Hires upscale") or _resized(said)
    if scale is None:
        return
    label = said.get("Hires upscaler", "Latent")
    name = UPSCALER_LABELS.get(label.casefold())
    steps = said.get("Hires steps", "0")
    values = {
        "scale": scale,
        "upscaler": name or "lanczos",
        "strength": said.get("Denoising strength", HIRES_STRENGTH),
        "steps": said.get("Steps") if steps == "0" else steps,
    }
    draft.take("hires", values, "Hires fix")
    if name is None:
        draft.unread["Hires upscaler"] = f"{short(label)} (no such upscaler here; Lanczos enlarges instead)"


def _resized(said: Mapping[str, str]) -> str | None:
    """The scale that `Hires resize: 1024x1536` comes to; None where it says none, or changes the shape."""
    try:
        sizes = [[int(side) for side in said[key].split("x")] for key in ("Size", "Hires resize")]
        scales = {large / small for small, large in zip(*sizes, strict=True) if large}
    except (KeyError, ValueError, ArithmeticError):
        return None
    return str(scales.pop()) if len(scales) == 1 else None


def _begun(draft: Draft, said: Mapping[str, str]) -> None:
    if "First steps" in said:
        draft.take("begun", {field: said[key] for key, field in BEGUN.items() if key in said}, "First steps")


def _hashes(draft: Draft, said: Mapping[str, str]) -> None:
    found = [(kind, *pair) for key, kind in HASHES.items() for pair in _named_hashes(said.get(key, ""))]
    draft.take("hashes", found or None)


def _named_hashes(text: str) -> list[tuple[str, str]]:
    """`name: hash, name: hash` as pairs."""
    pairs = (each.rpartition(":") for each in text.split(","))
    return [(name.strip(), digest.strip()) for name, colon, digest in pairs if colon and name.strip()]


def _noise(draft: Draft, said: Mapping[str, str], dialect: Dialect) -> None:
    """A noise source that is not the one which the tool's likeness draws from."""
    if dialect in (A1111, FORGE) and said.get("RNG") not in ("GPU", "NV", MISSING_MEANS["RNG"]):
        draft.unread["RNG"] = short(said["RNG"])


def _parts(draft: Draft, said: Mapping[str, str]) -> None:
    """What the picture needs beside its text."""
    hires = any(HIRES.fullmatch(key) for key in said)
    if "Denoising strength" in said and not hires:
        draft.take("strength", said["Denoising strength"], "Denoising strength")
        draft.need("the picture that it started from")
    if any(MASKS.fullmatch(key) for key in said):
        draft.need("the mask")
    for name, weight in _LORA.findall(f"{draft.prompt}\n{draft.negative}"):
        draft.need(f"the LoRA {short(name)!r}" + (f" at {short(weight)}" if weight else ""))
    tagged = {name for name, _ in _LORA.findall(f"{draft.prompt}\n{draft.negative}")}
    for name, _ in _named_hashes(said.get("Lora hashes", "")):
        if name not in tagged:
            draft.need(f"the LoRA {short(name)!r}")
    for name, _ in _named_hashes(said.get("TI hashes", "")):
        draft.need(f"the embedding {short(name)!r}")
    for key in ("VAE", "Refiner", "Hypernet"):
        if said.get(key, "None") not in ("None", "none", "Automatic"):
            draft.need(f"the {key} {short(said[key])!r}")


def _rest(draft: Draft, said: Mapping[str, str]) -> None:
    """Every key that nothing here knows, and a second pass as one where none of it could be read."""
    hires = {key: value for key, value in said.items() if HIRES.fullmatch(key)}
    if "hires" in draft.fields:
        more = {key: value for key, value in hires.items() if key not in HIRES_READ and "use same" not in value.lower()}
        draft.unread.update({key: short(value) for key, value in more.items()})
    elif hires:
        strength = {"Denoising strength": said["Denoising strength"]} if "Denoising strength" in said else {}
        draft.unread["Hires fix"] = short(", ".join(f"{key}: {value}" for key, value in {**hires, **strength}.items()))
    for key, value in said.items():
        if key not in (*FIELDS, *BEGUN, *hires) and not HARMLESS.fullmatch(key):
            draft.unread[key] = short(value)
