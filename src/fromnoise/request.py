"""The one schema of a drawing: pure data, read and written by every way into fromnoise."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from fromnoise.runtime.errors import UsageError

SAMPLERS = {
    "euler": "Euler",
    "euler-a": "Euler a",
    "heun": "Heun",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "plms": "PLMS",
    "lms": "LMS",
    "dpm2": "DPM2",
    "dpm2-a": "DPM2 a",
    "dpm-fast": "DPM fast",
    "dpm-adaptive": "DPM adaptive",
    "dpmpp-2m": "DPM++ 2M",
    "dpmpp-2m-sde": "DPM++ 2M SDE",
    "dpmpp-3m-sde": "DPM++ 3M SDE",
    "dpmpp-2s-a": "DPM++ 2S a",
    "dpmpp-sde": "DPM++ SDE",
    "unipc": "UniPC",
    "lcm": "LCM",
    "restart": "Restart",
    "euler-cfg-pp": "Euler CFG++",
    "dpmpp-2m-cfg-pp": "DPM++ 2M CFG++",
}
"""Samplers by the name asked for, with the name that other tools write."""

SCHEDULES = {
    "model": "Automatic",
    "leading": "Leading",
    "linspace": "Linspace",
    "trailing": "Trailing",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm-uniform": "SGM Uniform",
    "simple": "Simple",
    "normal": "Normal",
    "ddim-uniform": "DDIM",
    "beta": "Beta",
    "align-your-steps": "Align Your Steps",
    "align-your-steps-xl": "Align Your Steps",
    "zero-terminal-snr": "Zero Terminal SNR",
    "lcm": "LCM",
}
"""Schedules likewise; "model" is what the model's scheduler config says."""

WEIGHTINGS = ("a1111", "comfyui", "none")
"""Whose arithmetic `(word:1.3)` follows; with "none" brackets are letters like any other."""

LIKE = ("diffusers", "a1111", "comfyui")
"""Tools whose noise, step rounding, sigmas and weighting can be followed."""

MAX_SEED = 2**64 - 1
MAX_PROMPT = 8000
"""Characters of a prompt: far more than any text encoder reads, and few enough for a picture's EXIF."""


@dataclass(frozen=True)
class Control:
    """A ControlNet's part in a drawing: `picture` (PNG) is what it follows, `model` where it was loaded from.

    `weight` multiplies what it adds; it acts from the share `start` to the share `end` of the steps.
    """

    model: str
    picture: bytes
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        _text("a control's model", self.model)
        _range("a control's weight", self.weight, 0, 10)
        _share("a control's start and end", (self.start, self.end))


@dataclass(frozen=True)
class Lora:
    """An adapter file (LoRA, LoHa or LoKr) and its weight; `text` is the text encoder's own, None meaning the same."""

    path: str
    weight: float = 1.0
    text: float | None = None

    def __post_init__(self) -> None:
        _text("a LoRA's path", self.path)
        _range("a LoRA's weight", self.weight, -10, 10)
        _range("a LoRA's weight", self.weight if self.text is None else self.text, -10, 10)


@dataclass(frozen=True)
class Request:
    """What to draw and how. `seed` None asks for a fresh one; picture k of `count` gets seed + k.

    `steps`, `guidance`, `sampler`, `schedule`, `size` and `clip_skip` None mean the model's own; `size` is (width,
    height) in pixels. `weighting` says how `(word:1.3)` weighs; None is the way of the tool that `like`
    names, and the web UI's when it names none. `init` is the PNG of the picture that image to image
    starts from, already at the size to draw; `strength` in [0, 1] says how far to leave it; `mask` (PNG, white where
    to draw) goes with it for inpainting checkpoints. `rescale`, `interval` (shares of the steps), `apg` (parallel
    part, norm limit with 0 for none, momentum), `threshold` (a percentile) and `pag` temper guidance: see
    docs/guidance.md. `controls`, `loras` and `embeddings` (files of textual inversion) steer and adapt the model.
    `model` and `model_hash` say what drew it. Raises UsageError for values that no model could do.
    """

    prompt: str = ""
    negative: str = ""
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    schedule: str | None = None
    size: tuple[int, int] | None = None
    count: int = 1
    init: bytes | None = None
    strength: float = 0.6
    mask: bytes | None = None
    weighting: str | None = None
    clip_skip: int | None = None
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    apg: tuple[float, float, float] | None = None
    threshold: float | None = None
    pag: float = 0.0
    controls: tuple[Control, ...] = ()
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[str, ...] = ()
    like: str | None = None
    exact: bool = False
    model: str | None = None
    model_hash: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "negative"):
            _text(name, getattr(self, name))
        for name in CHOICES:
            if self._said(name):
                _choice(name, getattr(self, name), CHOICES[name])
        for name in RANGES:
            if self._said(name):
                _range(name, getattr(self, name), *RANGES[name])
        if self.seed is not None:
            _range("seed", self.seed, 0, MAX_SEED + 1 - self.count, int)
        for side in self.size or ():
            _range("size", side, 8, 8192, int)
        if self.interval is not None:
            _share("interval", self.interval)
        if self.apg is not None and len(self.apg) != len(APG):
            raise UsageError(f"apg must be {len(APG)} numbers, not {len(self.apg)}")
        for value, (name, low, high) in zip(self.apg or (), APG, strict=False):
            _range(f"apg's {name}", value, low, high)
        if self.mask is not None and self.init is None:
            raise UsageError("a mask goes with a picture to start from; give both")

    def _said(self, name: str) -> bool:
        """False for a field that is None and may be."""
        return getattr(self, name) is not None or getattr(Request, name) is not None

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """All fields as one JSON object, pictures in base64."""
        return json.dumps(asdict(self), ensure_ascii=False, default=lambda data: base64.b64encode(data).decode())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The request that `to_json` wrote; UsageError when the text is no request."""
        try:
            values = json.loads(text)
            known = {field.name for field in fields(cls)}
            unknown = sorted(set(values) - known)
            if unknown:
                raise UsageError(f"this picture's settings have unknown fields: {', '.join(unknown)}")
            read = {name: _READ[name](value) for name, value in values.items() if name in _READ and value is not None}
            return cls(**{**values, **read})
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise UsageError(f"these settings are damaged: {error}") from error


CHOICES: Mapping[str, Collection[str]] = {
    "sampler": SAMPLERS,
    "schedule": SCHEDULES,
    "weighting": WEIGHTINGS,
    "like": LIKE,
}
"""Fields that name one of several."""

RANGES: Mapping[str, tuple[float, float, type]] = {
    "steps": (1, 1000, int),
    "count": (1, 10_000, int),
    "guidance": (0, 100, float),
    "strength": (0, 1, float),
    "clip_skip": (1, 32, int),
    "rescale": (0, 1, float),
    "threshold": (0.5, 1, float),
    "pag": (0, 100, float),
}
"""Fields that are numbers, with their bounds."""

APG = (("parallel part", 0.0, 1.0), ("norm limit", 0.0, 10_000.0), ("momentum", -1.0, 1.0))
"""The three values of adaptive projected guidance, with their bounds."""


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _pair(values: Sequence[float]) -> tuple[float, float]:
    first, second = values
    return first, second


def _size(values: Sequence[int]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _controls(values: Sequence[Mapping[str, Any]]) -> tuple[Control, ...]:
    return tuple(Control(**{**value, "picture": _bytes(value["picture"])}) for value in values)


def _loras(values: Sequence[Mapping[str, Any]]) -> tuple[Lora, ...]:
    return tuple(Lora(**value) for value in values)


def _paths(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "init": _bytes,
    "mask": _bytes,
    "size": _size,
    "interval": _pair,
    "apg": tuple,
    "controls": _controls,
    "loras": _loras,
    "embeddings": _paths,
}


def _share(name: str, values: tuple[float, float]) -> None:
    if len(values) != 2:
        raise UsageError(f"{name} must be two numbers, not {len(values)}")
    for value in values:
        _range(name, value, 0, 1)
    if values[0] >= values[1]:
        raise UsageError(f"{name} must rise, not go from {values[0]:g} to {values[1]:g}")


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


def _range(name: str, value: Any, low: float, high: float, kind: type = float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | kind) or not low <= value <= high:
        a_number = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name} must be {a_number} from {low:g} to {high:g}, not {value!r}")
