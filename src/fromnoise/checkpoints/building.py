"""The module that a part's weights go into, made on the meta device: shapes without memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fromnoise.checkpoints.checkpoint import QUANTISATION, class_of
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.models.config import Config
from fromnoise.models.controlnet import ControlNet, ControlNetConfig
from fromnoise.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.models.unet_blocks import TrunkConfig
from fromnoise.nn.eight_bit import replace_layers
from fromnoise.runtime.errors import FromnoiseError

T = TypeVar("T")

MODULES: Mapping[str, tuple[Callable[[Any], nn.Module], type[Config]]] = MappingProxyType(
    {
        "UNet2DConditionModel": (UNet, UNetConfig),
        "AutoencoderKL": (Autoencoder, AutoencoderConfig),
        "AutoencoderTiny": (TinyAutoencoder, TinyAutoencoderConfig),
        "ControlNetModel": (ControlNet, ControlNetConfig),
        "CLIPTextModel": (ClipText, TextConfig),
        "CLIPTextModelWithProjection": (ClipText, TextConfig),
    }
)
"""By the class that a config names."""


METHOD = "fromnoise-int8"
"""The only way of keeping them that is known; see nn/eight_bit.py."""

PLAIN, MIXED = "plain", "mixed"
"""A layer's inputs as they come, or mixed before they are rounded."""

WAYS = (PLAIN, MIXED)


FILLERS = frozenset({nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_})
"""What layers draw their first values with; on the meta device it does nothing, yet loads a second of torch's code."""


COUNTS = frozenset({"layers_per_block", "num_hidden_layers", "transformer_layers_per_block"})
MOST = 1000
"""Layers that are built at most; a mistyped number would keep the machine busy for hours."""

WHOLE = COUNTS | {
    *("attention_head_dim", "num_attention_heads", "cross_attention_dim", "norm_num_groups", "block_out_channels"),
    *("in_channels", "out_channels", "latent_channels", "hidden_size", "intermediate_size", "vocab_size"),
    *("max_position_embeddings", "sample_size"),
}
LARGEST = 10_000_000
"""Fields that hold whole numbers, and how large those may be."""


class Unfilled(TorchFunctionMode):
    """While this lasts, initialising leaves tensors as they are. For modules on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Pass everything on but the fillers, which torch hands over with their arguments by name."""
        kwargs = kwargs or {}
        return kwargs["tensor"] if func in FILLERS else func(*args, **kwargs)


def build(values: Mapping[str, Any]) -> nn.Module:
    """A part's module on the meta device; FromnoiseError for a class, a field or a value that is not supported."""
    config, eight_bit = read_config(values), eight_bit_names(values)
    kind = class_of(values)
    with torch.device("meta"), Unfilled():
        module = _tried(kind, lambda: MODULES[kind][0](config))
        try:
            replace_layers(module, eight_bit)
        except KeyError as error:
            raise FromnoiseError(f"{QUANTISATION} names {error.args[0]}, which is no such layer of a {kind}") from None
    return module


def read_config(values: Mapping[str, Any]) -> Config:
    """What a part's `config.json` states; FromnoiseError for a class, a field or a value that is not supported."""
    kind = class_of(values)
    if kind not in MODULES:
        raise FromnoiseError(f"a part of the class {kind or 'that its config leaves out'} is not supported")
    own = {name: value for name, value in values.items() if name != QUANTISATION}
    config = _tried(kind, lambda: MODULES[kind][1].from_json(own))
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if not _is_proper(field.name, str(field.type), value):
            raise FromnoiseError(f"the config of a {kind} can't have {str(value)[:40]} in {field.name}; fetch it again")
    for width, heads in _tried(kind, lambda: list(_attentions(config))):
        if width % heads:
            raise FromnoiseError(f"the config of a {kind} has {heads} heads for {width} channels; fetch it again")
    return config


def _tried(kind: str, made: Callable[[], T]) -> T:
    """What `made` returns; FromnoiseError where the values of a config don't allow it."""
    try:
        return made()
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, AssertionError, RuntimeError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise FromnoiseError(f"the config of a {kind} has a value that can't be ({why}); fetch it again") from error


def _attentions(config: Config) -> Iterator[tuple[int, int]]:
    """How many channels are shared by how many heads, wherever they are."""
    if isinstance(config, TextConfig):
        yield config.hidden_size, config.num_attention_heads
    if isinstance(config, TrunkConfig):
        last = len(config.block_out_channels) - 1  # the middle attends at the coarsest level
        for level, width in enumerate(config.block_out_channels):
            if level == last or "CrossAttn" in config.down_block_types[level]:
                yield width, config.heads(level)


def _is_proper(name: str, kind: str, value: Any) -> bool:
    """True for a value of a field's kind, as its class spells that; only numbers are looked at."""
    if value is None:
        return "None" in kind or (name not in WHOLE and kind != "float")
    if name in WHOLE:
        return all(_is_count(each, MOST if name in COUNTS else LARGEST) for each in _flat(value))
    return kind != "float" or (isinstance(value, int | float) and type(value) is not bool and math.isfinite(value))


def _flat(value: Any) -> Iterator[Any]:
    """A field's values, those of lists in lists too, but for what is left out."""
    if isinstance(value, tuple):
        for each in value:
            yield from _flat(each)
    elif value is not None:
        yield value


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def eight_bit_names(config: Mapping[str, Any]) -> dict[str, bool]:
    """The layers that a part's config says are kept in 8 bits, and whether their inputs are mixed before.

    FromnoiseError when it says it in a way unknown.
    """
    said = config.get(QUANTISATION)
    if said is None:
        return {}
    match said:
        case {"quant_method": str(method)} if method != METHOD:
            raise FromnoiseError(f"weights quantised by {method} are not supported; use the original model")
        case {"quant_method": str(), "layers": {**ways}} if all(way in WAYS for way in ways.values()):
            return {name: way == MIXED for name, way in ways.items()}
    raise FromnoiseError(f"{QUANTISATION} can't be read; make the model anew with fromnoise optimize")


def quantisation(mixing: Mapping[str, bool]) -> dict[str, Any]:
    """What a config says of layers kept in 8 bits, by whether their inputs are mixed."""
    return {"quant_method": METHOD, "layers": {name: MIXED if mixes else PLAIN for name, mixes in mixing.items()}}
