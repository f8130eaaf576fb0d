"""Adapter files as Adapter: which layers they name, and what they add to each. Factors are paired by key name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fromnoise.adapters.factors import Factors, Loha, Lokr, Lora
from fromnoise.adapters.families import seen_family, stated_family
from fromnoise.adapters.keys import LOHA, LOKR, LORA, NUMBERS, Key, read_key, refused_kind
from fromnoise.adapters.settings import peft_scale
from fromnoise.checkpoints.folder import read_json
from fromnoise.checkpoints.report import first_of
from fromnoise.checkpoints.stored import Stored, Tensors
from fromnoise.checkpoints.weights import Weights, open_weights
from fromnoise.runtime.errors import FromnoiseError, UsageError

Parts = Mapping[str, Mapping[str, Factors]]
"""Factors by part (diffusers' folder names) and layer."""

DIFFUSERS_CONFIG = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's settings in a file's metadata, each with its part's name before it."""

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
"""What a folder written by PEFT holds."""

EMBEDDINGS = ("emb_params", "string_to_param", "clip_l", "clip_g")
"""Keys of a textual inversion, which is another kind of adapter."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA, LoHa or LoKr as its file has it: layers are named in the file's own way until they are matched.

    `family` is the generation it was trained on ("sd1", "sd2", "sdxl", or what its metadata says), None when neither
    its metadata nor its shapes tell.
    """

    name: str
    kind: str
    parts: Parts
    family: str | None = None
    source: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Part and layer of every delta, as the file names them."""
        return tuple(f"{part}: {layer}" for part, named in self.parts.items() for layer in named)

    @property
    def where(self) -> str:
        """The file, or the name of an adapter that came from none."""
        return str(self.source or self.name)


def read_adapter(path: str | Path, *, name: str | None = None) -> Adapter:
    """The LoRA, LoHa or LoKr in a file of kohya's, LyCORIS', diffusers' or PEFT's layout, or in a folder of PEFT's.

    Tensors stay mapped from their file where its format allows. Raises UsageError when there is nothing at `path`, and
    FromnoiseError for a damaged file, one of another kind, or one with a key that no layout has.
    """
    path = Path(path).expanduser()
    weights, settings = _opened(path)
    layers = _by_layer(weights)
    parts: dict[str, dict[str, Factors]] = {}
    for (part, layer), leaves in layers.items():
        parts.setdefault(part, {})[layer] = _factors(weights.path, layer, leaves, _settings_of(settings, part))
    stated = stated_family(weights.metadata)
    family = stated or seen_family(parts.get("unet", {}))
    kind = "+".join(sorted({type(each).__name__.lower() for named in parts.values() for each in named.values()}))
    return Adapter(name or path.stem, kind, parts, family, path, weights.metadata)


def _opened(path: Path) -> tuple[Weights, Mapping[str, Any]]:
    """The weights, and PEFT's settings where they are told."""
    if path.is_dir():
        files = [path / each for each in PEFT_WEIGHTS if (path / each).is_file()]
        if not files:
            raise UsageError(f"{path} is a folder without {PEFT_WEIGHTS[0]}; name the adapter's file itself")
        return open_weights(files[0]), read_json(path / PEFT_CONFIG)
    if not path.exists():
        raise UsageError(f"there is no adapter at {path}")
    weights = open_weights(path)
    return weights, _told(path, weights.metadata)


def _told(path: Path, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        values = json.loads(metadata.get(DIFFUSERS_CONFIG, "{}"))
    except (ValueError, RecursionError) as error:
        raise FromnoiseError(f"{path}: {DIFFUSERS_CONFIG} in its metadata can't be read: {error}") from error
    return values if isinstance(values, dict) else {}


def _settings_of(settings: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """PEFT's settings for one part; those without a part's name before them hold for all."""
    own = {key.removeprefix(f"{part}."): each for key, each in settings.items() if key.startswith(f"{part}.")}
    return own or settings


def _by_layer(weights: Weights) -> dict[tuple[str, str], dict[str, Stored]]:
    """The tensors of each layer by the last piece of their key."""
    _require_supported(weights)
    layers: dict[tuple[str, str], dict[str, Stored]] = {}
    unknown = []
    for key, stored in weights.tensors.items():
        match read_key(key):
            case None:
                unknown.append(key)
            case Key(part, layer, leaf):
                leaves = layers.setdefault((part, layer), {})
                if leaf in leaves:
                    raise FromnoiseError(f"{weights.path} has {leaf} of {layer} twice, {key} the second time")
                leaves[leaf] = stored
    if unknown:
        raise FromnoiseError(
            f"{weights.path} is no adapter that is known: {len(unknown)} of {len(weights.tensors)} keys are not those "
            f"of a LoRA, LoHa or LoKr ({first_of(unknown)})"
        )
    if not layers:
        raise FromnoiseError(f"{weights.path} is an adapter without any layer")
    return layers


def _require_supported(weights: Weights) -> None:
    """FromnoiseError for kinds that are known and not read here."""
    if any(each in weights.tensors for each in EMBEDDINGS) or _is_embedding(weights.tensors):
        raise FromnoiseError(f"{weights.path} is a textual inversion; load it as an embedding, not as a LoRA")
    for key in weights.tensors:
        if kind := refused_kind(key):
            raise FromnoiseError(f"{weights.path} is of the kind {kind} ({key}), which is not supported")


def _is_embedding(tensors: Tensors) -> bool:
    return len(tensors) == 1 and not any("." in key for key in tensors)


def _factors(path: Path, layer: str, leaves: Mapping[str, Stored], settings: Mapping[str, Any]) -> Factors:
    """One layer's factors with their scale; FromnoiseError when some are missing or don't fit together."""
    names = [leaf for leaf in leaves if leaf not in NUMBERS]
    for kind, table in ((Lora, LORA), (Loha, LOHA), (Lokr, LOKR)):
        if names and all(leaf in table for leaf in names):
            fields: dict[str, Any] = {table[leaf]: leaves[leaf].read() for leaf in names}
            _require_whole(path, layer, kind, fields)
            made = kind(**fields)
            return replace(made, scale=_scale(path, layer, leaves, made.rank, settings))
    raise FromnoiseError(f"{path}: {layer} has {first_of(leaves)}, which together are no LoRA, LoHa or LoKr")


def _require_whole(path: Path, layer: str, kind: type, fields: Mapping[str, Any]) -> None:
    """FromnoiseError when factors are missing, or their ranks differ."""
    if not any(needed <= set(fields) for needed in NEEDED[kind]):
        missing = sorted(min((needed - set(fields) for needed in NEEDED[kind]), key=len))
        raise FromnoiseError(f"{path}: {layer} lacks its {first_of(missing)}; the file is incomplete")
    for one, other in JOINED:
        if one in fields and other in fields and not _joins(fields[one].shape, fields[other].shape, fields, other):
            shapes = f"{one} {list(fields[one].shape)} and {other} {list(fields[other].shape)}"
            raise FromnoiseError(f"{path}: the factors of {layer} don't fit together ({shapes})")


def _joins(one: Iterable[int], other: Iterable[int], fields: Mapping[str, Any], name: str) -> bool:
    """True when a factor's columns (rows with a Tucker core) are as many as the other's rows."""
    first, second = list(one), list(other)
    core = fields.get({"w1_b": "t1", "w2_b": "t2"}.get(name, ""))
    return min(len(first), len(second)) >= 2 and (first[0] if core is not None else first[1]) == second[0]


NEEDED: Mapping[type, tuple[frozenset[str], ...]] = {
    Lora: (frozenset({"up", "down"}),),
    Loha: (frozenset({"w1_a", "w1_b", "w2_a", "w2_b"}),),
    Lokr: tuple(frozenset({*one, *two}) for one in ({"w1"}, {"w1_a", "w1_b"}) for two in ({"w2"}, {"w2_a", "w2_b"})),
}
"""The factors that a layer must have: any of these sets."""

JOINED = (("up", "down"), ("w1_a", "w1_b"), ("w2_a", "w2_b"))
"""Factors that are multiplied, so that their ranks must agree."""


def _scale(
    path: Path, layer: str, leaves: Mapping[str, Stored], rank: int | None, settings: Mapping[str, Any]
) -> float:
    """What the product is multiplied by: alpha / rank, times LyCORIS' scalar.

    Without `alpha` it is PEFT's setting, else 1. Where nothing is factorised, LyCORIS has no scale.
    """
    scalar = _number(path, layer, leaves["scalar"]) if "scalar" in leaves else 1.0
    if "alpha" in leaves:
        alpha = _number(path, layer, leaves["alpha"])
        return scalar * (alpha / rank if rank and alpha else 1.0)
    return scalar * peft_scale(path, layer, rank, settings)


def _number(path: Path, layer: str, stored: Stored) -> float:
    if stored.shape not in ((), (1,)):
        raise FromnoiseError(f"{path}: alpha of {layer} should be one number, not {list(stored.shape)}")
    if not math.isfinite(value := float(stored.read())):
        raise FromnoiseError(f"{path}: alpha of {layer} is {value}, which is no scale; fetch the file again")
    return value
