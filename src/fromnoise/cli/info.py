"""`info`: what a picture says about itself, or what a model folder holds."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli.drawing import read_input
from fromnoise.hub import found
from fromnoise.images.metadata import OWN, Settings, read_settings
from fromnoise.images.opening import open_image
from fromnoise.images.saving import FORMATS
from fromnoise.request import Request
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.runtime.streams import printable

if TYPE_CHECKING:
    from fromnoise.checkpoints import Part

MODEL_CARD, CONCEPTS = "README.md", "concepts.json"
MODEL_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")

MISSING, UNREAD = "missing", "not read"
WORDS = ("prompt", "negative")

SHOWN = 12
"""Styles or concepts named where a person reads."""

UNITS: Mapping[str, Callable[[int], str]] = MappingProxyType(
    {"bytes": lambda number: f"{number / 1e6:.1f} MB", "parameters": lambda number: f"{number / 1e6:.2f} M"}
)


def info(
    subject: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PICTURE|MODEL]",
            help="A picture; or a model's folder, file or owner/name pulled.",
            show_default="the embedded model",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and all of it.")] = False,
) -> None:
    """Show a picture's settings, or a model's parts, sizes, licence, styles and concepts.

    For example:

    ```sh
    fromnoise info
    fromnoise info outputs/2026-01-31-0-a-red-apple.png
    fromnoise info ~/models/stable-diffusion-v1-5 --json
    fromnoise info dreamshaper.safetensors
    ```
    """
    path = EMBEDDED_MODEL if subject is None else _found(subject)
    facts = model_facts(path) if path.is_dir() or path.suffix in MODEL_FILES else picture_facts(*read_input(str(path)))
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else printable("\n".join(_lines(facts))))


def _found(subject: Path) -> Path:
    """A picture's path as it is; a model's, or that of what was pulled under this name."""
    return subject.expanduser() if subject.suffix.lower() in FORMATS or str(subject) == "-" else found(subject)


def picture_facts(data: bytes, name: str) -> dict[str, Any]:
    """What a picture file is and carries; UsageError when it is no picture."""
    image = open_image(data, name)
    facts = {"picture": name, "format": image.format, "size": f"{image.width}x{image.height}"}
    settings = read_settings(image)
    if settings is None:
        return {**facts, "settings": None}
    return {**facts, **_settings_facts(settings)}


def model_facts(path: Path) -> dict[str, Any]:
    """What a checkpoint in any layout holds, read without loading a weight; UsageError when it is none."""
    from fromnoise.checkpoints import open_checkpoint
    from fromnoise.hub.pushing import card_licence

    checkpoint = open_checkpoint(path)
    parts = {name: _part_facts(part) for name, part in checkpoint.parts.items()}
    known = _json(path / CONCEPTS) if (path / CONCEPTS).is_file() else {}
    return {
        "model": str(path.resolve()),
        "family": checkpoint.family,
        "prediction": checkpoint.scheduler.get("prediction_type"),
        "licence": card_licence(path / MODEL_CARD),
        "bytes": sum(part["bytes"] for part in parts.values()),
        "parameters": sum(part["parameters"] for part in parts.values()),
        "parts": parts,
        "styles": known.get("styles", []),
        "concepts": known.get("labels", []),
    }


def _settings_facts(settings: Settings) -> dict[str, Any]:
    """A request of ours field by field; another tool's settings as it wrote them, and what they come to here."""
    words = {"tool": settings.tool, "prompt": settings.prompt, "negative": settings.negative}
    request = None if settings.request is None else _request_facts(settings.request)
    own = _drawn_at(request) if request is not None and settings.tool == OWN else None
    said = own or {"settings": dict(settings.values), "request": request}
    unread = [f"{key}: {value}" for key, value in settings.unread.items()]
    return {**words, **said, MISSING: list(settings.missing), UNREAD: unread, "replay": _replay(settings)}


def _drawn_at(request: dict[str, Any]) -> dict[str, Any]:
    """The request of a picture, whose own size may be another: of a second pass, or of a part that was put back."""
    return {"drawn at" if key == "size" else key: value for key, value in request.items()}


def _request_facts(request: Request) -> dict[str, Any]:
    """A request's fields, pictures told by their length."""
    pictures = {"init": request.init, "mask": request.mask}
    said = {key: f"a picture of {len(data)} bytes, embedded" for key, data in pictures.items() if data is not None}
    controls = [f"{each.model} at {each.weight:g}" for each in request.controls]
    size = "{}x{}".format(*request.size) if request.size else None
    return {**json.loads(request.to_json()), "size": size, **said, "controls": controls}


def _replay(settings: Settings) -> str:
    """Whether the picture can be drawn again here, in words."""
    model = f"the model {settings.request.model}" if settings.request and settings.request.model else "its model"
    if settings.request is None:
        return "no: it is a contact sheet" if "Sheet" in settings.values else "no: its settings can't be read"
    if settings.tool == OWN:
        return "yes, exactly, with the model that drew it"
    if settings.complete:
        return f"yes, with {model}, as near as {settings.tool} can be followed"
    return f"only nearly: with {model}, without what is missing and not read"


def _part_facts(part: Part) -> dict[str, Any]:
    tensors = part.tensors.values()
    return {
        "class": part.class_name,
        "dtype": str(part.dtype).removeprefix("torch."),
        "parameters": sum(prod(each.shape) for each in tensors if each.dtype.is_floating_point),
        "bytes": sum(each.bytes for each in tensors),
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FromnoiseError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise FromnoiseError(f"{path} should hold a JSON object")
    return value


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    """Facts as aligned lines for a person; what is empty is left out."""
    said = [(key, text) for key, value in _flat(facts) if (text := _said(key, value))]
    width = max(len(key) for key, _ in said) + 2
    whole = textwrap.TextWrapper(100, break_on_hyphens=False, break_long_words=False)  # so that paths stay in one piece
    for key, text in said:
        whole.initial_indent, whole.subsequent_indent = f"{key:<{width}}", " " * width
        yield from whole.wrap(text)


def _flat(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each part of a model, and each setting of a picture, as a fact of its own."""
    for key, value in facts.items():
        if key == "request":
            yield "read as", _read_as(value)
        elif key in IN_WORDS:
            yield key, IN_WORDS[key](value) if value else None
        elif isinstance(value, dict):
            yield from value.items()
        else:
            yield key, value


def _read_as(request: dict[str, Any] | None) -> str:
    """What another tool's settings come to, in our words, without the prompts and what a request has anyway."""
    usual = json.loads(Request().to_json())
    said = {key: value for key, value in (request or {}).items() if key not in WORDS and value not in (None, [])}
    told = {key: IN_WORDS[key](value) if key in IN_WORDS else value for key, value in said.items()}
    return ", ".join(f"{key} {value}" for key, value in told.items() if said[key] != usual[key])


def _second_pass(hires: dict[str, Any]) -> str:
    steps = "" if hires["steps"] is None else f", {hires['steps']} steps"
    tiles = "" if hires["tile"] is None else f", in tiles of {hires['tile']} pixels"
    return f"{hires['scale']:g} times as large by {hires['upscaler']}, strength {hires['strength']:g}{steps}{tiles}"


def _first_steps(begun: dict[str, Any]) -> str:
    negative = f", negative {begun['negative']!r}" if begun["negative"] else ""
    guidance = "" if begun["guidance"] is None else f", guidance {begun['guidance']:g}"
    return f"{begun['steps']} steps of {begun['prompt']!r}{negative}{guidance}"


def _hashes(hashes: list[dict[str, str]]) -> str:
    return ", ".join(f"{each['kind']} {each['name']} {each['hash']}" for each in hashes)


IN_WORDS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {"hires": _second_pass, "begun": _first_steps, "hashes": _hashes}
)
"""Settings of several values, as a person reads them."""


def _said(key: str, value: Any) -> str:
    """One fact in words."""
    if isinstance(value, dict):
        weights = f"{UNITS['parameters'](value['parameters'])} parameters, " if value["parameters"] else ""
        return f"{value['class']}, {weights}{UNITS['bytes'](value['bytes'])}"
    if isinstance(value, list):
        more = f", … {len(value)} in all, --json lists them" if len(value) > SHOWN else ""
        return ("; " if key in (MISSING, UNREAD) else ", ").join(map(str, value[:SHOWN])) + more
    return UNITS[key](value) if key in UNITS and isinstance(value, int) else "" if value is None else str(value)
