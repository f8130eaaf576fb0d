"""A recipe is a frozen dataclass with defaults; a TOML file may replace any of its fields by what is ALLOWED."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from fromnoise.request import MAX_SEED, SAMPLERS, SCHEDULES
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write

R = TypeVar("R")


class Rule(NamedTuple):
    """Which values a field may have, beside its default, and how to say so: `{}` stands for their kind."""

    allows: Callable[[Any], bool]
    words: str = "{}"


def between(low: float, high: float = sys.float_info.max) -> Rule:
    """Numbers from `low` to `high`, both included; neither nan nor infinity."""
    words = f"{{}} from {low} up" if high == sys.float_info.max else f"{{}} from {low} to {high}"
    return Rule(lambda value: low <= value <= high, words)


def one_of(choices: Collection[str]) -> Rule:
    """One of several words."""
    return Rule(lambda value: value in choices, f"one of {', '.join(choices)}")


ANY = Rule(lambda value: True)
COUNT, SHARE = between(1), between(0, 1)
FROM_0 = between(0)
"""What is switched off by 0, or counted from it."""

ABOVE_0 = Rule(lambda value: 0 < value <= sys.float_info.max, "{} above 0")
SAID = Rule(lambda value: bool(value.strip()), "{} that says something")

ALLOWED: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(("steps", "batch", "check_every", "patience", "export_every"), COUNT),
        **dict.fromkeys(("warmup", "decay_at", "average", "sample_every", "minutes", "most_drift"), FROM_0),
        **dict.fromkeys(("rate", "temperature", "sharpness", "gain", "highest"), ABOVE_0),
        **dict.fromkeys(("empty", "reworded", "varied", "far", "smoothing", "elsewhere", "captions"), SHARE),
        **dict.fromkeys(("gamma", "power", "noise_offset", "evenness"), FROM_0),
        **dict.fromkeys(("keep_weight", "prior", "anchor", "edges", "kl", "hold", "align"), FROM_0),
        **dict.fromkeys(("rows", "concepts", "contrast", "texts", "names"), FROM_0),
        **dict.fromkeys(("palettes", "styles"), FROM_0),
        **dict.fromkeys(("keep", "class_pictures", "phrases", "alpha", "growth"), FROM_0),
        **dict.fromkeys(("rank", "trajectories", "pictures", "aligned", "plain", "stride"), COUNT),
        **dict.fromkeys(("width", "layers", "heads", "averages"), COUNT),
        **dict.fromkeys(("real", "answers", "fewest", "most", "exact"), COUNT),
        **dict.fromkeys(("held", "shades"), between(2)),
        **dict.fromkeys(("jumps", "teacher_steps"), between(1, 1000)),
        **dict.fromkeys(("sampler", "teacher"), one_of(SAMPLERS)),
        **dict.fromkeys(("caption", "token", "subject"), SAID),
        **dict.fromkeys(("init", "model", "text", "autoencoder", "judge"), SAID),
        "labelled": SHARE,
        "sides": Rule(lambda value: value > 0 and value % 16 == 0, "{}, multiples of 16 from 16 up"),
        "seed": between(0, MAX_SEED),
        "sample_steps": between(0, 1000),
        "guidance": between(0, 100),
        "dropout": between(0, 0.9),
        "vectors": between(1, 32),
        "noisy_from": between(0, 999),
        "near": between(-1, 1),
        "vocabulary": between(514),
        "positions": between(3),
        "schedule": one_of(SCHEDULES),
        "layout": one_of(("kohya", "peft")),
        "architecture": one_of(("residual", "patches")),
    }
)
"""What the fields of all recipes may say: one of a name means the same everywhere. Of a list it goes for each item."""


def read_recipe(recipe: R, path: Path | None) -> R:
    """`recipe` with the fields that the file names replaced.

    UsageError for a bad file, an unknown field, a value that is not allowed and fields that don't go together.
    """
    if path is None:
        return recipe
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"can't read the recipe {path}: {error}") from error
    known = [field.name for field in fields(recipe)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UsageError(f"{path}: no field {name!r} in this recipe; it has {', '.join(known)}")
    require_allowed(recipe, values, lambda name: f"{path}: {name}")
    try:
        return replace(recipe, **{name: _frozen(value) for name, value in values.items()})  # type: ignore[type-var]
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def require_allowed(default: object, values: Mapping[str, Any], called: Callable[[str], str]) -> None:
    """UsageError for the first value that its field can't have, with what the field is `called` where it was given.

    What a recipe's fields say by `default` they may always say.
    """
    kinds = get_type_hints(type(default))
    for name, value in values.items():
        kind, rule = kinds[name], ALLOWED.get(name, ANY)
        if not _fits(value, kind) or not (value == getattr(default, name) or _allows(rule, value)):
            raise UsageError(f"{called(name)} must be {rule.words.format(_kind(kind))}, not {value!r}")


def write_recipe(recipe: object, path: Path) -> None:
    """The resolved recipe as TOML, for the run folder."""
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text("".join(recipe_lines(recipe)), encoding="utf-8")


def recipe_lines(recipe: object) -> list[str]:
    """A recipe's TOML, a field a line; fields that are None are left out."""
    values = {name: value for name, value in asdict(recipe).items() if value is not None}  # type: ignore[call-overload]
    return [f"{name} = {_toml(value)}\n" for name, value in values.items()]


def _fits(value: object, kind: Any) -> bool:
    """True where a TOML value is of a field's type; a whole number is a number too, and true is none."""
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_fits(each, get_args(kind)[0]) for each in value)
    kinds = get_args(kind) or (kind,)  # `int | None` is several
    return type(value) in kinds or (type(value) is int and float in kinds)


def _allows(rule: Rule, value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(map(rule.allows, items))


def _kind(kind: Any) -> str:
    """A field's type in words."""
    if get_origin(kind) is tuple:
        return "a list of whole numbers"
    first, *_ = get_args(kind) or (kind,)
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[first]


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)
