"""The "parameters" text of the AUTOMATIC1111 web UI, which most tools and picture sites read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fromnoise.request import SAMPLERS, SCHEDULES, TILE_SHARE, UPSCALERS, Control, Hires, Request

MISSING_MEANS = MappingProxyType({"Clip skip": "1", "RNG": "GPU", "Schedule type": "Automatic"})
"""What a settings line leaves out because it was the web UI's default."""

FEWEST_PAIRS = 3
"""A last line with fewer pairs is a line of the prompt."""

WRITER = "fromnoise"
"""What we write as Version, which is how readers tell tools apart."""

_NEGATIVE = "Negative prompt:"

# A run of key characters that no colon follows is consumed whole, which keeps long lines linear.
_PAIR = re.compile(r'(?P<key>\w[\w /-]++)(?:(?P<colon>:)\s*(?P<value>"(?:[^"\\]|\\.)++"(?=,|$)|[^,]*)(?:,|$))?')


@dataclass(frozen=True)
class Parameters:
    """The text taken apart: the settings' keys and values as written, with what was left out filled in."""

    prompt: str
    negative: str
    settings: Mapping[str, str]


def write_parameters(request: Request, **more: str) -> str:
    """The text for a resolved request, with any `more` settings at the end."""
    negative = f"\n{_NEGATIVE} {request.negative}" if request.negative else ""
    settings = ", ".join(f"{key}: {_quoted(value)}" for key, value in {**_settings(request), **more}.items())
    return f"{request.prompt}{negative}\n{settings}".strip()


def parse_parameters(text: str) -> Parameters:
    """Take a text apart as the web UI does; never raises, since the worst text is a prompt."""
    *lines, last = text.strip().split("\n")
    settings = dict(_pairs(last))
    if len(settings) < FEWEST_PAIRS:
        lines, settings = [*lines, last], {}
    prompt, negative = _prompts(line.strip() for line in lines)
    return Parameters(prompt, negative, {**MISSING_MEANS, **settings} if settings else {})


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _said(value: float) -> str | None:
    """A number, unless it is 0 and does nothing."""
    return f"{value:g}" if value else None


def _strength(request: Request) -> str | None:
    """The second pass's where there is one, as in the web UI; else image to image's."""
    if request.hires is not None:
        return _number(request.hires.strength)
    return None if request.init is None else _number(request.strength)


def _second(request: Request, part: str) -> str | None:
    """What the second pass of a drawing says of itself."""
    return None if request.hires is None or request.init is not None else _of_hires(request.hires)[part]


def _enlarging(request: Request, part: str) -> str | None:
    """What upscaling says of itself: in the names of the web UI's script "SD upscale", as far as it has any."""
    return None if request.hires is None or request.init is None else _of_hires(request.hires)[part]


def _first(request: Request, part: str) -> str | None:
    """What a branch's first steps were told; None for nothing."""
    return None if request.begun is None else getattr(request.begun, part) or None


def _of_hires(hires: Hires) -> dict[str, str | None]:
    return {
        "scale": _number(hires.scale),
        "steps": None if hires.steps is None else str(hires.steps),
        "upscaler": UPSCALERS[hires.upscaler],
        "overlap": None if hires.tile is None else str(hires.tile // TILE_SHARE),
    }


def _hashes(request: Request, kind: str) -> str | None:
    """`name: hash, name: hash`, as the web UI writes them; None without any."""
    said = [f"{re.sub('[,:]', ' ', each.name)}: {each.hash}" for each in request.hashes if each.kind == kind]
    return ", ".join(said) or None


def _control(control: Control) -> str:
    parts = {
        "Model": re.sub(r"[,:\n]", " ", control.model),
        "Weight": _number(control.weight),
        "Guidance Start": _number(control.start),
        "Guidance End": _number(control.end),
    }
    return ", ".join(f"{key}: {value}" for key, value in parts.items())


WRITTEN: Mapping[str, Callable[[Request], object]] = MappingProxyType(
    {
        "Steps": lambda request: request.steps,
        "Sampler": lambda request: request.sampler and SAMPLERS[request.sampler],
        "Schedule type": lambda request: request.schedule and SCHEDULES[request.schedule],
        "CFG scale": lambda request: _number(request.guidance),
        "Seed": lambda request: request.seed,
        "Size": lambda request: request.size and "{}x{}".format(*request.size),
        "Model hash": lambda request: request.model_hash,
        "Model": lambda request: request.model,
        "Denoising strength": lambda request: _strength(request),
        "Clip skip": lambda request: request.clip_skip,
        "RNG": lambda request: None if request.like == "a1111" else "CPU",
        "Emphasis": lambda request: "None" if request.weighting == "none" else None,
        "Hires upscale": lambda request: _second(request, "scale"),
        "Hires steps": lambda request: _second(request, "steps"),
        "Hires upscaler": lambda request: _second(request, "upscaler"),
        "SD upscale overlap": lambda request: _enlarging(request, "overlap"),
        "SD upscale upscaler": lambda request: _enlarging(request, "upscaler"),
        "Lora hashes": lambda request: _hashes(request, "lora"),
        "TI hashes": lambda request: _hashes(request, "embedding"),
        "Variation seed": lambda request: request.variation_seed if request.variation else None,
        "Variation seed strength": lambda request: _said(request.variation),
        "Tiling": lambda request: "True" if request.tile == "xy" else request.tile,
        "Mask blur": lambda request: None if request.mask is None else request.mask_blur,
        "Inpaint area": lambda request: None if request.mask_padding is None else "Only masked",
        "Masked area padding": lambda request: request.mask_padding,
        "Weighting": lambda request: "comfyui" if request.weighting == "comfyui" else None,
        "Like": lambda request: request.like,
        "CFG rescale": lambda request: _said(request.rescale),
        "CFG interval": lambda request: request.interval and "{:g}-{:g}".format(*request.interval),
        "APG": lambda request: request.apg and "{:g}/{:g}/{:g}".format(*request.apg),
        "Dynamic thresholding": lambda request: _number(request.threshold),
        "PAG scale": lambda request: _said(request.pag),
        "Upscale by": lambda request: _enlarging(request, "scale"),
        "First steps": lambda request: request.begun and request.begun.steps,
        "First prompt": lambda request: _first(request, "prompt"),
        "First negative prompt": lambda request: _first(request, "negative"),
        "First CFG scale": lambda request: request.begun and _number(request.begun.guidance),
    }
)
"""Keys in the order in which they are written, and what each says of a request; None is left out.

The web UI's own keys and values as far as "Masked area padding" (where "Tiling" is "x" or "y" for one axis, which it
takes for both; modules/processing.py, `create_infotext`), then ours.
"""


def _settings(request: Request) -> dict[str, str]:
    said = {key: value(request) for key, value in WRITTEN.items()}
    said |= {f"ControlNet {index}": _control(each) for index, each in enumerate(request.controls)}
    said["Version"] = WRITER
    return {key: str(value) for key, value in said.items() if value is not None}


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    for match in _PAIR.finditer(line):
        if match["colon"]:
            yield match["key"], _unquoted(match["value"])


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value.strip()


def _prompts(lines: Iterable[str]) -> tuple[str, str]:
    """The lines before the one that begins the negative prompt, and the rest."""
    positive: list[str] = []
    negative: list[str] = []
    target = positive
    for line in lines:
        if line.startswith(_NEGATIVE):
            target, line = negative, line.removeprefix(_NEGATIVE).strip()
        target.append(line)
    return "\n".join(positive).lstrip("\n"), "\n".join(negative).lstrip("\n")
