"""The one schema of a drawing: pure data, read and written by every way into fromnoise."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from fromnoise.runtime.errors import UsageError

SAMPLERS = {
    "euler": "Euler",
    "euler-a": "Euler a",
    "heun": "Heun",
    "ddim": "DDIM",
    "dpmpp-2m": "DPM++ 2M",
}
"""Samplers by the name asked for, with the name that other tools write."""

SCHEDULES = {
    "model": "Automatic",
    "leading": "Leading",
    "linspace": "Linspace",
    "trailing": "Trailing",
    "karras": "Karras",
    "exponential": "Exponential",
}
"""Schedules likewise; "model" is what the model's scheduler config says."""

LIKE = ("diffusers",)
"""Tools whose noise, step rounding and first picture can be followed."""

MAX_SEED = 2**64 - 1
MAX_PROMPT = 8000
"""Characters of a prompt: far more than any text encoder reads, and few enough for a picture's EXIF."""


@dataclass(frozen=True)
class Request:
    """What to draw and how. `seed` None asks for a fresh one; picture k of `count` gets seed + k.

    `size` is (width, height) in pixels and None means the model's own. `init` is the PNG of the picture that image
    to image starts from, already at the size to draw; `strength` in [0, 1] says how far to leave it. `model` and
    `model_hash` say what drew it. Raises UsageError for values that no model could do.
    """

    prompt: str = ""
    negative: str = ""
    seed: int | None = None
    steps: int = 25
    guidance: float = 4.0
    sampler: str = "dpmpp-2m"
    schedule: str = "model"
    size: tuple[int, int] | None = None
    count: int = 1
    init: bytes | None = None
    strength: float = 0.6
    like: str = "diffusers"
    exact: bool = False
    model: str | None = None
    model_hash: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "negative"):
            _text(name, getattr(self, name))
        for name, choices in (("sampler", SAMPLERS), ("schedule", SCHEDULES), ("like", LIKE)):
            _choice(name, getattr(self, name), choices)
        _range("steps", self.steps, 1, 1000, int)
        _range("count", self.count, 1, 10_000, int)
        _range("guidance", self.guidance, 0, 100)
        _range("strength", self.strength, 0, 1)
        if self.seed is not None:
            _range("seed", self.seed, 0, MAX_SEED + 1 - self.count, int)
        for side in self.size or ():
            _range("size", side, 8, 8192, int)

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """All fields as one JSON object, `init` in base64."""
        init = None if self.init is None else base64.b64encode(self.init).decode()
        return json.dumps({**asdict(self), "init": init}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The request that `to_json` wrote; UsageError when the text is no request."""
        try:
            values = json.loads(text)
            known = {field.name for field in fields(cls)}
            unknown = sorted(set(values) - known)
            if unknown:
                raise UsageError(f"this picture's settings have unknown fields: {', '.join(unknown)}")
            init, size = values.get("init"), values.get("size")
            values["init"] = None if init is None else base64.b64decode(init, validate=True)
            values["size"] = None if size is None else (int(size[0]), int(size[1]))
            return cls(**values)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise UsageError(f"these settings are damaged: {error}") from error


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > MAX_PROMPT:
        raise UsageError(f"{name} must be text of at most {MAX_PROMPT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name} must be valid Unicode; check the terminal's encoding") from None


def _choice(name: str, value: object, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"no {name} {value!r}; choose one of {', '.join(choices)}")


def _range(name: str, value: Any, low: int, high: int, kind: type = float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | kind) or not low <= value <= high:
        a_number = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name} must be {a_number} from {low} to {high}, not {value!r}")
