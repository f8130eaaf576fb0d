"""A Request in the making: what another tool says is taken as far as a Request allows it, and the rest is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fromnoise.images.foreign.names import SAMPLER_LABELS, SCHEDULE_LABELS
from fromnoise.images.settings import Settings
from fromnoise.request import LIKE, AdapterHash, Begun, Hires, Request
from fromnoise.runtime.errors import UsageError

LONGEST = 200
"""Characters of a value that is quoted to a person."""


class Draft:
    """Collects one picture's settings; `settings` gives what came of them. Nothing here raises for what it is given."""

    def __init__(self, tool: str, *, like: str = "diffusers", weighting: str = "none") -> None:
        self.tool = tool
        self.prompt = self.negative = ""
        self.values: dict[str, str] = {}
        self.fields: dict[str, Any] = {"weighting": weighting, **({"like": like} if like in LIKE else {})}
        self.missing: list[str] = []
        self.unread: dict[str, str] = {}

    def take(self, field: str, value: Any, key: str | None = None) -> None:
        """Set a Request's field from a tool's value, as it says under `key`; None says nothing."""
        if value is None:
            return
        try:
            read = READ[field](value)
            Request(**{field: read})
        except (UsageError, ValueError, TypeError, OverflowError) as error:
            self.unread[key or field] = f"{short(value)} ({error})" if isinstance(error, UsageError) else short(value)
        else:
            self.fields[field] = read

    def words(self, prompt: Any, negative: Any, escape: Callable[[str], str] = str) -> None:
        """The two prompts; `escape` makes what is plain to the tool plain to us, in the request alone."""
        self.prompt, self.negative = clean(prompt or ""), clean(negative or "")
        self.take("prompt", escape(self.prompt), "prompt")
        self.take("negative", escape(self.negative), "negative prompt")

    def sampler(self, label: Any, key: str, said: Any = None) -> None:
        """The sampler that the web UI calls `label`; `said` is what the tool itself calls it."""
        self._named("sampler", SAMPLER_LABELS, label, key, said)

    def schedule(self, label: Any, key: str, said: Any = None) -> None:
        """The schedule that the web UI calls `label`; None leaves it to the model."""
        self._named("schedule", SCHEDULE_LABELS, label, key, said)

    def _named(self, field: str, known: Mapping[str, str], label: Any, key: str, said: Any) -> None:
        if label is None:
            return
        name = known.get(clean(label).casefold())
        if name is None:
            self.unread[key] = f"{short(label if said is None else said)} (no such {field} here)"
        else:
            self.fields[field] = name

    def need(self, sentence: str) -> None:
        """Say once that the picture needs something that it does not carry."""
        if sentence not in self.missing:
            self.missing.append(sentence)

    def settings(self) -> Settings:
        """All of it; the request always stands, since each field was tried on its way in."""
        return Settings(
            tool=self.tool,
            prompt=self.prompt,
            negative=self.negative,
            values=self.values,
            request=Request(**self.fields),
            missing=tuple(self.missing),
            unread=self.unread,
        )


def damaged(tool: str, what: str) -> Settings:
    """The settings of a picture whose metadata can't be read at all."""
    return Settings(tool, "", "", {}, missing=(f"its settings ({what}) are damaged and can't be read",))


def clean(value: Any) -> str:
    """Text that can be printed and encoded: halves of surrogate pairs, which JSON allows, become question marks."""
    return str(value).encode("utf-8", "replace").decode()


def short(value: Any) -> str:
    """A value in one line, not too long."""
    text = " ".join(clean(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Those values that are words or numbers, as text."""
    return {clean(key): clean(value) for key, value in values.items() if isinstance(value, str | int | float)}


def json_object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def dig(values: Any, *path: str) -> Any:
    """The value under nested keys; None where there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def whole(value: Any) -> int:
    """A whole number from a number or text; ValueError for anything else."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"not a whole number: {value}")
    return int(value)


def number(value: Any) -> float:
    """A number from a number or text; ValueError or TypeError for anything else."""
    if isinstance(value, bool):
        raise ValueError(f"not a number: {value}")
    return float(value)


def size(value: Any) -> tuple[int, int]:
    """(width, height) from `512x768` or from a pair; ValueError or TypeError for anything else."""
    width, height = re.split(r"\s*[x×]\s*", value.strip()) if isinstance(value, str) else value
    return whole(width), whole(height)


def share(value: Any) -> tuple[float, float]:
    """Two numbers with a hyphen between them, `0.2-0.8`; ValueError for anything else."""
    first, second = clean(value).split("-")
    return float(first), float(second)


def tiling(value: Any) -> str | None:
    """The axes of a Request's `tile` from the web UI's `True`, or from an axis; None for `False`."""
    return {"True": "xy", "False": None}.get(clean(value), clean(value))


def three(value: Any) -> tuple[float, float, float]:
    """Three numbers with slashes between them, `0/15/-0.5`; ValueError for anything else."""
    first, second, third = clean(value).split("/")
    return float(first), float(second), float(third)


def hires(values: Mapping[str, Any]) -> Hires:
    """A second pass from its fields as text; ValueError or UsageError for anything else."""
    return Hires(**{key: _OF_PASSES[key](value) for key, value in values.items() if value is not None})


def begun(values: Mapping[str, Any]) -> Begun:
    """What the first steps were told, likewise."""
    return Begun(**{key: _OF_PASSES[key](value) for key, value in values.items()})


def hashes(values: Sequence[tuple[str, str, str]]) -> tuple[AdapterHash, ...]:
    """Adapters' hashes from their kinds, names and digits."""
    return tuple(AdapterHash(*map(clean, each)) for each in values)


_OF_PASSES: Mapping[str, Callable[[Any], Any]] = {
    "scale": number,
    "strength": number,
    "steps": whole,
    "upscaler": clean,
    "prompt": clean,
    "negative": clean,
    "guidance": number,
}

READ: Mapping[str, Callable[[Any], Any]] = {
    "prompt": clean,
    "negative": clean,
    "seed": whole,
    "steps": whole,
    "guidance": number,
    "strength": number,
    "clip_skip": whole,
    "rescale": number,
    "threshold": number,
    "pag": number,
    "variation": number,
    "variation_seed": whole,
    "mask_blur": whole,
    "mask_padding": whole,
    "tile": tiling,
    "size": size,
    "interval": share,
    "apg": three,
    "weighting": clean,
    "like": clean,
    "model": clean,
    "model_hash": clean,
    "hires": hires,
    "begun": begun,
    "hashes": hashes,
}
"""How each field is read from a tool's value."""
