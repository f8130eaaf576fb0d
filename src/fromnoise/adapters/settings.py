"""PEFT's settings of a LoRA, which come with its file: what is said of its scale, taken for text and never run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fromnoise.runtime.errors import FromnoiseError

PLAIN = re.compile(r"(?:[\w-]|\\\.|\.\*?)+")
"""Patterns that are read: a layer's name or its end, dots plain or escaped, `.*` for anything between. PEFT takes any
regular expression, but one of a stranger's can take forever."""

Settings = Mapping[str, Any]


def peft_scale(path: Path, layer: str, rank: int | None, settings: Settings) -> float:
    """PEFT's alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023); 1 where nothing is said.

    FromnoiseError naming the file for settings that are no numbers, or patterns that are no names.
    """
    alpha = _setting(path, layer, settings, "alpha_pattern", settings.get("lora_alpha", settings.get("alpha")))
    rank = rank or _setting(path, layer, settings, "rank_pattern", settings.get("r"))
    if alpha is None or not rank:
        return 1.0
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _setting(path: Path, layer: str, settings: Settings, name: str, default: Any) -> Any:
    """A number, which patterns of layers' names may overrule; the first that fits counts."""
    patterns = settings.get(name) or {}
    if not isinstance(patterns, Mapping):
        raise FromnoiseError(f"{path}: its {name} is no table of layers; fetch the file again")
    found = [value for pattern, value in patterns.items() if _fits(path, name, pattern, layer)]
    value = found[0] if found else default
    usual = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    if value is not None and not usual:
        raise FromnoiseError(
            f"{path}: its {name.removesuffix('_pattern')} for {layer} is {repr(value)[:40]}, which is no scale"
        )
    return value


def _fits(path: Path, name: str, pattern: str, layer: str) -> bool:
    """What PEFT's `(.*\\.)?(pattern)$` matches, for patterns that are names, with or without `.*` in them."""
    bare = pattern.removeprefix("^").removesuffix("$")
    if not PLAIN.fullmatch(bare):
        raise FromnoiseError(f"{path}: its {name} holds {pattern[:40]!r}; only layers' names and .* are read there")
    first, *between = (piece.replace("\\.", ".") for piece in bare.split(".*"))
    whole = layer if pattern.startswith("^") else f".{layer}"
    first = first if pattern.startswith("^") else f".{first}"
    if not between:
        return whole == first if pattern.startswith("^") else whole.endswith(first)
    at = 0 if whole.startswith(first) else -1 if pattern.startswith("^") else whole.find(first)
    return at >= 0 and _follow(whole[at + len(first) :], between)


def _follow(rest: str, pieces: Sequence[str]) -> bool:
    """True when the pieces stand in the rest one after another, the last one at its end."""
    *between, last = pieces
    for piece in between:
        _, found, rest = rest.partition(piece) if piece else ("", ".", rest)
        if not found:
            return False
    return rest.endswith(last)
