"""The "parameters" text of the AUTOMATIC1111 web UI, which most tools and picture sites read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fromnoise.request import SAMPLERS, SCHEDULES, Control, Request

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
        "Denoising strength": lambda request: None if request.init is None else _number(request.strength),
        "Clip skip": lambda request: request.clip_skip,
        "RNG": lambda request: None if request.like == "a1111" else "CPU",
        "Emphasis": lambda request: "None" if request.weighting == "none" else None,
        "Mask blur": lambda request: None if request.mask is None else 0,
        "Weighting": lambda request: "comfyui" if request.weighting == "comfyui" else None,
        "Like": lambda request: request.like,
        "CFG rescale": lambda request: _said(request.rescale),
        "CFG interval": lambda request: request.interval and "{:g}-{:g}".format(*request.interval),
        "APG": lambda request: request.apg and "{:g}/{:g}/{:g}".format(*request.apg),
        "Dynamic thresholding": lambda request: _number(request.threshold),
        "PAG scale": lambda request: _said(request.pag),
    }
)
"""Keys in the order in which they are written, and what each says of a request; None is left out.

The web UI's own keys and values as far as "Mask blur" (modules/processing.py, `create_infotext`), then ours.
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
