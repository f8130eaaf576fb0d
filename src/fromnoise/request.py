"""The one schema of a drawing: pure data, read and written by every way into fromnoise."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, cast

from fromnoise.runtime import checks
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

UPSCALERS = {
    "latent": "Latent",
    "latent-antialiased": "Latent (antialiased)",
    "latent-bicubic": "Latent (bicubic)",
    "latent-bicubic-antialiased": "Latent (bicubic antialiased)",
    "latent-nearest": "Latent (nearest)",
    "latent-nearest-exact": "Latent (nearest-exact)",
    "lanczos": "Lanczos",
    "nearest": "Nearest",
}
"""What makes the small picture of a second pass larger: its latents (the first is bilinear), or its pixels."""

TILE_SHARE = 4
"""Neighbouring tiles share one part in so many of their sides."""

WEIGHTINGS = ("a1111", "comfyui", "none")
"""Whose arithmetic `(word:1.3)` follows; with "none" brackets are letters like any other."""

LIKE = ("diffusers", "a1111", "comfyui")
"""Tools whose noise, step rounding, sigmas and weighting can be followed."""

QUALITIES = ("draft", "balanced", "best")
"""How much work a picture is worth; see pipeline.quality for what each means."""

ADAPTER_KINDS = ("lora", "embedding", "control", "vae")

TILINGS = ("x", "y", "xy")
"""Axes along which a picture's opposite edges may meet: x left and right, y top and bottom."""

USUAL_STEPS, EMBEDDED_STEPS = 25, 12
"""Steps of a drawing unless told otherwise: with most published models, and with the embedded one (docs/speed.md)."""

MAX_SEED = 2**64 - 1


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
        checks.text("a control's model", self.model)
        checks.of_kind("a control's picture", self.picture, bytes, "a picture's bytes (PNG)")
        checks.number("a control's weight", self.weight, 0, 10)
        checks.share("a control's start and end", (self.start, self.end))


@dataclass(frozen=True)
class Lora:
    """An adapter file (LoRA, LoHa or LoKr) and its weight; `text` is the text encoder's own, None meaning the same."""

    path: str
    weight: float = 1.0
    text: float | None = None

    def __post_init__(self) -> None:
        checks.text("a LoRA's path", self.path)
        checks.number("a LoRA's weight", self.weight, -10, 10)
        checks.number("a LoRA's weight", self.weight if self.text is None else self.text, -10, 10)


@dataclass(frozen=True)
class Hires:
    """A second pass, `scale` times as large: what was drawn is enlarged by `upscaler`, made noisy and drawn anew.

    `strength` in [0, 1] says how far to leave it; `steps` are run in the second pass, None being the strength's share
    of the first pass's. `tile` is the side in pixels of the overlapping tiles that the network is shown, None for no
    tiles.
    """

    scale: float = 2.0
    upscaler: str = "lanczos"
    strength: float = 0.4
    steps: int | None = None
    tile: int | None = None

    def __post_init__(self) -> None:
        checks.choice("hires upscaler", self.upscaler, UPSCALERS)
        checks.number("hires scale", self.scale, 1, 16)
        checks.number("hires strength", self.strength, 0, 1)
        if self.steps is not None:
            checks.number("hires steps", self.steps, 1, 1000, int)
        if self.tile is not None:
            checks.number("hires tile", self.tile, 8, 8192, int)

    @property
    def in_latents(self) -> bool:
        """True when latents are enlarged, not pixels."""
        return self.upscaler.startswith("latent")


@dataclass(frozen=True)
class Begun:
    """What the first `steps` steps of a drawing were told, where its later ones are told something else."""

    steps: int
    prompt: str = ""
    negative: str = ""
    guidance: float | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "negative"):
            checks.text(f"the first {name}", getattr(self, name))
        checks.number("the number of first steps", self.steps, 1, 1000, int)
        if self.guidance is not None:
            checks.number("the first guidance", self.guidance, 0, 100)


@dataclass(frozen=True)
class AdapterHash:
    """Which file an adapter of this name was: the first twelve hex digits of a SHA-256, as other tools write it.

    `kind` is "lora" (the tensors alone were hashed), "embedding", "control" or, for an autoencoder that isn't the
    model's own, "vae" (all of the file was).
    """

    kind: str
    name: str
    hash: str

    def __post_init__(self) -> None:
        checks.choice("kind of adapter", self.kind, ADAPTER_KINDS)
        checks.text("an adapter's name", self.name)
        checks.text("an adapter's hash", self.hash)


@dataclass(frozen=True)
class Request:
    """What to draw and how. `seed` None asks for a fresh one; picture k of `count` gets seed + k.

    `steps`, `guidance`, `sampler`, `schedule`, `size` and `clip_skip` None mean the model's own; `size` is (width,
    height) in pixels. `weighting` says how `(word:1.3)` weighs; None is the way of the tool that `like` names, and the
    web UI's when it names none. `init` is the PNG of the picture that image to image starts from, already at the size
    to draw; `strength` in [0, 1] says how far to leave it. `mask` (PNG of the same size, white where to draw) keeps
    the rest of it, whatever the size; `mask_blur` feathers the mask's edge, in pixels, and `mask_padding` draws the
    mask's surroundings alone, that many pixels around it, at `size`. `variation` in [0, 1] says how much of
    `variation_seed`'s noise is blended in; picture k then gets variation_seed + k and all of them the same seed.
    `tile` ("x", "y" or "xy") makes opposite edges meet. `rescale`, `interval` (shares of the steps), `apg` (parallel
    part, norm limit with 0 for none, momentum), `threshold` (a percentile) and `pag` temper guidance: see
    docs/guidance.md. `reuse` keeps deep features for so many calls and recomputes so many outer layers, `merge` is the
    share of tokens that self-attention does without, and `quality` chooses these and more where a request doesn't say:
    see docs/speed.md. `controls`, `loras` and `embeddings` (files of textual inversion) steer and adapt the model.
    `hires` draws it larger in a second pass; with `init` that is all that is drawn, and the picture is upscaled.
    `fast` draws in a few steps without guidance, with the LoRA distilled for that. `begun` says how the first steps of
    a branched drawing were drawn. `model`, `model_hash` and `hashes` say what drew it, `engine` and `dtype` how it was
    computed; they ask for nothing. Raises UsageError for values that no model could do.
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
    mask_blur: int = 2
    mask_padding: int | None = None
    variation: float = 0.0
    variation_seed: int | None = None
    tile: str | None = None
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
    fast: bool = False
    quality: str | None = None
    reuse: tuple[int, int] | None = None
    merge: float | None = None
    model: str | None = None
    model_hash: str | None = None
    engine: str | None = None
    dtype: str | None = None
    hires: Hires | None = None
    begun: Begun | None = None
    hashes: tuple[AdapterHash, ...] = ()

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, checks.plain(getattr(self, each.name)))
        self._check_kinds()
        for name in CHOICES:
            if self._said(name):
                checks.choice(name, getattr(self, name), CHOICES[name])
        for name in RANGES:
            if self._said(name):
                checks.number(name, getattr(self, name), *RANGES[name])
        self._check_seeds()
        self._check_several()
        self._check_together()

    def _check_kinds(self) -> None:
        for name in TEXTS:
            if self._said(name):
                checks.text(name, getattr(self, name))
        for name, (kind, words) in KINDS.items():
            if self._said(name):
                checks.of_kind(name, getattr(self, name), kind, words)
        for name, (kind, words) in LISTS.items():
            checks.all_of_kind(name, getattr(self, name), kind, words)
        for each in self.embeddings:
            checks.text("an embedding's path", each)

    def _check_seeds(self) -> None:
        """Several pictures' seeds count up: the variation's where there is one."""
        for name, counts in (("seed", not self.variation), ("variation_seed", bool(self.variation))):
            if getattr(self, name) is not None:
                last = self.count - 1 if counts else 0
                what = f"{name}, which counts up to the last of {self.count} pictures," if last else name
                checks.number(what, getattr(self, name), 0, MAX_SEED - last, int)

    def _check_several(self) -> None:
        """Fields of several numbers."""
        if self.size is not None:
            checks.numbers("size", self.size, 2)
        for side in self.size or ():
            checks.number("size", side, 8, 8192, int)
        if self.interval is not None:
            checks.share("interval", self.interval)
        if self.apg is not None:
            checks.numbers("apg", self.apg, len(APG))
        for value, (name, low, high) in zip(self.apg or (), APG, strict=False):
            checks.number(f"apg's {name}", value, low, high)
        if self.reuse is not None:
            checks.numbers("reuse", self.reuse, len(REUSE))
        for count, (name, most) in zip(self.reuse or (), REUSE, strict=False):
            checks.number(f"reuse's {name}", count, 1, most, int)

    def _check_together(self) -> None:
        if self.mask is not None and self.init is None:
            raise UsageError("a mask goes with a picture to start from; give both")
        if self.tile is not None and self.hires is not None and self.hires.tile is not None:
            raise UsageError("a texture's edges can't meet in tiles (hires tile); draw it whole")
        if self.mask_padding is not None and self.init is not None and self.mask is None:
            raise UsageError("mask_padding goes with a mask; give both")
        if self.mask is not None and self.hires is not None:
            raise UsageError("a mask has no second pass (hires); draw inside the mask first, then upscale the picture")

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
        except RecursionError:
            raise UsageError("these settings are damaged: they are nested too deeply") from None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise UsageError(f"these settings are damaged: {error}") from error


TEXTS = ("prompt", "negative", "model", "model_hash", "engine", "dtype")

KINDS: Mapping[str, tuple[type, str]] = {
    "init": (bytes, "a picture's bytes (PNG)"),
    "mask": (bytes, "a picture's bytes (PNG)"),
    "exact": (bool, "true or false"),
    "fast": (bool, "true or false"),
    "hires": (Hires, "a Hires"),
    "begun": (Begun, "a Begun"),
}
"""Fields that are of a class."""

LISTS: Mapping[str, tuple[type, str]] = {
    "controls": (Control, "Controls"),
    "loras": (Lora, "Loras"),
    "embeddings": (str, "paths"),
    "hashes": (AdapterHash, "AdapterHashes"),
}
"""Fields that are lists of one class."""

CHOICES: Mapping[str, Collection[str]] = {
    "sampler": SAMPLERS,
    "schedule": SCHEDULES,
    "weighting": WEIGHTINGS,
    "like": LIKE,
    "tile": TILINGS,
    "quality": QUALITIES,
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
    "mask_blur": (0, 256, int),
    "mask_padding": (0, 4096, int),
    "variation": (0, 1, float),
    "merge": (0, 0.75, float),
}
"""Fields that are numbers, with their bounds."""

APG = (("parallel part", 0.0, 1.0), ("norm limit", 0.0, 10_000.0), ("momentum", -1.0, 1.0))
"""The three values of adaptive projected guidance, with their bounds."""

REUSE = (("number of calls", 100), ("number of layers", 10))
"""The two values of reusing deep features, from 1 up to these."""


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _list(values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise TypeError(f"a list was expected, not {values!r}")
    return tuple(cast("list[Any]", values))


def _controls(values: Sequence[Mapping[str, Any]]) -> tuple[Control, ...]:
    said: list[dict[str, Any]] = [{**value, "picture": _bytes(value["picture"])} for value in values]
    return tuple(Control(**each) for each in said)


def _loras(values: Sequence[Mapping[str, Any]]) -> tuple[Lora, ...]:
    return tuple(Lora(**value) for value in values)


def _hashes(values: Sequence[Mapping[str, Any]]) -> tuple[AdapterHash, ...]:
    return tuple(AdapterHash(**value) for value in values)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "init": _bytes,
    "mask": _bytes,
    "size": _list,
    "interval": _list,
    "apg": _list,
    "reuse": _list,
    "controls": _controls,
    "loras": _loras,
    "embeddings": _list,
    "hires": lambda value: Hires(**value),
    "begun": lambda value: Begun(**value),
    "hashes": _hashes,
}
