"""The "parameters" text of the AUTOMATIC1111 web UI, which most tools and picture sites read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fromnoise.request import SAMPLERS, SCHEDULES, Request

MISSING_MEANS = MappingProxyType({"Clip skip": "1", "RNG": "GPU", "Schedule type": "Automatic"})
"""What a settings line leaves out because it was the web UI's default."""

FEWEST_PAIRS = 3
"""A last line with fewer pairs is a line of the prompt."""

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
    """The text for a request whose seed and size are settled, with any `more` settings at the end."""
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


def _settings(request: Request) -> dict[str, str]:
    width, height = request.size or (0, 0)
    said: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": SAMPLERS[request.sampler],
        "Schedule type": SCHEDULES[request.schedule],
        "CFG scale": f"{request.guidance:g}",
        "Seed": request.seed,
        "Size": f"{width}x{height}",
        "Model hash": request.model_hash,
        "Model": request.model,
        "Denoising strength": None if request.init is None else f"{request.strength:g}",
        "RNG": "CPU",
    }
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
