"""A recipe is a frozen dataclass with defaults; a TOML file may replace any of its fields."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TypeVar

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write

R = TypeVar("R")


def read_recipe(recipe: R, path: Path | None) -> R:
    """`recipe` with the fields that the file names replaced; UsageError for a bad file or an unknown field."""
    if path is None:
        return recipe
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"can't read the recipe {path}: {error}") from error
    known = {field.name: field for field in fields(recipe)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{path}: no field {name!r} in this recipe; it has {', '.join(known)}")
        if not _fits(value, getattr(recipe, name)):
            raise UsageError(f"{path}: {name} should be like {getattr(recipe, name)!r}, not {value!r}")
    return replace(recipe, **{name: _frozen(value) for name, value in values.items()})  # type: ignore[type-var]


def write_recipe(recipe: object, path: Path) -> None:
    """The resolved recipe as TOML, for the run folder."""
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text("".join(recipe_lines(recipe)))


def recipe_lines(recipe: object) -> list[str]:
    """A recipe's TOML, a field a line; fields that are None are left out."""
    values = {name: value for name, value in asdict(recipe).items() if value is not None}  # type: ignore[call-overload]
    return [f"{name} = {_toml(value)}\n" for name, value in values.items()]


def _fits(value: object, default: object) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return default is None or isinstance(_frozen(value), type(default))


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)
