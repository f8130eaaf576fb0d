"""The layouts of published checkpoints, as tables: what each part's tensors are called in a single file.

The folder layout is diffusers' and transformers'; its keys are our modules' own names. The single-file layout is that
of CompVis (SD 1.x and 2.x) and of Stability's SGM (SDXL). https://github.com/CompVis/stable-diffusion
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fromnoise.checkpoints.keymap import (
    ONE_BY_ONE,
    TRANSPOSED,
    Extra,
    Fields,
    Json,
    KeyMap,
    Places,
    Rule,
    Third,
)

DEFAULTS: Json = {
    "block_out_channels": (320, 640, 1280, 1280),
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "layers_per_block": 2,
    "num_hidden_layers": 12,
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
"""What a config that leaves a field out means by it."""


def _of(config: Json, name: str) -> Any:
    return config.get(name, DEFAULTS[name])


FOLDER = KeyMap(lenient=True)
"""The folder layout itself, where every key keeps its name."""

# The U-Net. CompVis numbers all blocks of one direction in a row: `entry` counts residual blocks and resamplers.

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""The layers of a residual block: in the folder, in the single file."""


def _resnets(folder: str, single: str, places: Places) -> tuple[Rule, ...]:
    return tuple(Rule(f"{folder}.{one}", f"{single}.{other}", places) for one, other in RESNET.items())


def _down(config: Json) -> Iterator[Fields]:
    layers = _of(config, "layers_per_block")
    for level in range(len(_of(config, "block_out_channels"))):
        for layer in range(layers):
            yield {"level": level, "layer": layer, "entry": 1 + level * (layers + 1) + layer}


def _downsamplers(config: Json) -> Iterator[Fields]:
    for level in range(len(_of(config, "block_out_channels")) - 1):
        yield {"level": level, "entry": (level + 1) * (_of(config, "layers_per_block") + 1)}


def _middle(config: Json) -> Iterator[Fields]:
    yield from ({"layer": layer, "entry": 2 * layer} for layer in range(2))


def _up(config: Json) -> Iterator[Fields]:
    layers = _of(config, "layers_per_block") + 1
    for level in range(len(_of(config, "block_out_channels"))):
        for layer in range(layers):
            yield {"level": level, "layer": layer, "entry": level * layers + layer}


def _upsamplers(config: Json) -> Iterator[Fields]:
    """An upsampler stands behind the level's last transformer, or where that would be."""
    layers = _of(config, "layers_per_block") + 1
    for level, kind in enumerate(_of(config, "up_block_types")[:-1]):
        yield {"level": level, "entry": level * layers + layers - 1, "slot": 2 if "CrossAttn" in kind else 1}


_HALF_UNET = (
    Rule("conv_in", "input_blocks.0.0"),
    Rule("time_embedding.linear_1", "time_embed.0"),
    Rule("time_embedding.linear_2", "time_embed.2"),
    Rule("add_embedding.linear_1", "label_emb.0.0"),
    Rule("add_embedding.linear_2", "label_emb.0.2"),
    *_resnets("down_blocks.{level}.resnets.{layer}", "input_blocks.{entry}.0", _down),
    Rule("down_blocks.{level}.attentions.{layer}", "input_blocks.{entry}.1", _down),
    Rule("down_blocks.{level}.downsamplers.0.conv", "input_blocks.{entry}.0.op", _downsamplers),
    *_resnets("mid_block.resnets.{layer}", "middle_block.{entry}", _middle),
    Rule("mid_block.attentions.0", "middle_block.1"),
)
"""What a U-Net and a ControlNet share."""

UNET = KeyMap(
    rules=(
        *_HALF_UNET,
        Rule("time_embedding.cond_proj", "time_embedding.cond_proj"),
        *(Rule(f"add_embedding.{part}", f"add_embedding.{part}") for part in ("norm1", "pool", "proj", "norm2")),
        *_resnets("up_blocks.{level}.resnets.{layer}", "output_blocks.{entry}.0", _up),
        Rule("up_blocks.{level}.attentions.{layer}", "output_blocks.{entry}.1", _up),
        Rule("up_blocks.{level}.upsamplers.0.conv", "output_blocks.{entry}.{slot}.conv", _upsamplers),
        Rule("conv_norm_out", "out.0"),
        Rule("conv_out", "out.2"),
    ),
    spellings=(Rule("time_embedding.cond_proj", "time_embed.cond_proj"),),
)


def _hints(config: Json) -> Iterator[Fields]:
    for index in range(2 * (len(_of(config, "conditioning_embedding_out_channels")) - 1)):
        yield {"index": index, "entry": 2 * (index + 1)}


def _hint_end(config: Json) -> Iterator[Fields]:
    yield {"entry": 2 * (2 * len(_of(config, "conditioning_embedding_out_channels")) - 1)}


def _zero_convolutions(config: Json) -> Iterator[Fields]:
    levels, layers = len(_of(config, "block_out_channels")), _of(config, "layers_per_block")
    yield from ({"entry": entry} for entry in range(levels * (layers + 1)))


CONTROLNET = KeyMap(
    rules=(
        *_HALF_UNET,
        Rule("controlnet_cond_embedding.conv_in", "input_hint_block.0"),
        Rule("controlnet_cond_embedding.blocks.{index}", "input_hint_block.{entry}", _hints),
        Rule("controlnet_cond_embedding.conv_out", "input_hint_block.{entry}", _hint_end),
        Rule("controlnet_down_blocks.{entry}", "zero_convs.{entry}.0", _zero_convolutions),
        Rule("controlnet_mid_block", "middle_block_out.0"),
    ),
)

# The autoencoder. CompVis counts the decoder's levels from the finest, diffusers from the coarsest.


def _halves(config: Json) -> Iterator[Fields]:
    yield from ({"half": half} for half in ("encoder", "decoder"))


def _middles(config: Json) -> Iterator[Fields]:
    for fields in _halves(config):
        yield from ({**fields, "layer": layer, "entry": layer + 1} for layer in range(2))


def _levels(config: Json) -> Iterator[Fields]:
    levels = len(_of(config, "block_out_channels"))
    yield from ({"level": level, "from_finest": levels - 1 - level} for level in range(levels))


def _encoder(config: Json) -> Iterator[Fields]:
    for fields in _levels(config):
        yield from ({**fields, "layer": layer} for layer in range(_of(config, "layers_per_block")))


def _decoder(config: Json) -> Iterator[Fields]:
    for fields in _levels(config):
        yield from ({**fields, "layer": layer} for layer in range(_of(config, "layers_per_block") + 1))


ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
"""The layers of the autoencoder's attention: in the folder, in the single file."""

OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""The same in the folders of diffusers before release 0.15."""


def _attention(names: Mapping[str, str], single: str) -> tuple[Rule, ...]:
    folder = "{half}.mid_block.attentions.0"
    return tuple(Rule(f"{folder}.{one}", f"{single}.{other}", _halves, ONE_BY_ONE) for one, other in names.items())


_ENCODER, _DECODER = "encoder.down_blocks.{level}", "decoder.up_blocks.{level}"
_SINGLE_ENCODER, _SINGLE_DECODER = "encoder.down.{level}", "decoder.up.{from_finest}"
_LAYER, _BLOCK = "resnets.{layer}", "block.{layer}"

VAE = KeyMap(
    rules=(
        Rule("quant_conv", "quant_conv"),
        Rule("post_quant_conv", "post_quant_conv"),
        Rule("{half}.conv_in", "{half}.conv_in", _halves),
        Rule("{half}.conv_norm_out", "{half}.norm_out", _halves),
        Rule("{half}.conv_out", "{half}.conv_out", _halves),
        Rule("{half}.mid_block.resnets.{layer}", "{half}.mid.block_{entry}", _middles),
        *_attention(ATTENTION, "{half}.mid.attn_1"),
        Rule(f"{_ENCODER}.{_LAYER}", f"{_SINGLE_ENCODER}.{_BLOCK}", _encoder),
        Rule(f"{_ENCODER}.{_LAYER}.conv_shortcut", f"{_SINGLE_ENCODER}.{_BLOCK}.nin_shortcut", _encoder),
        Rule(f"{_ENCODER}.downsamplers.0", f"{_SINGLE_ENCODER}.downsample", _levels),
        Rule(f"{_DECODER}.{_LAYER}", f"{_SINGLE_DECODER}.{_BLOCK}", _decoder),
        Rule(f"{_DECODER}.{_LAYER}.conv_shortcut", f"{_SINGLE_DECODER}.{_BLOCK}.nin_shortcut", _decoder),
        Rule(f"{_DECODER}.upsamplers.0", f"{_SINGLE_DECODER}.upsample", _levels),
    ),
    spellings=_attention(OLD_ATTENTION, "{half}.mid.attn_1"),
    extras=(Extra("loss"), Extra("logvar"), Extra("model_ema")),
)
VAE_FOLDER = KeyMap(spellings=_attention(OLD_ATTENTION, "{half}.mid_block.attentions.0"), lenient=True)


def _tiny(config: Json) -> Iterator[Fields]:
    """More layers than any tiny autoencoder has; the original decoder's first one clamps and has no weights."""
    yield from ({"layer": layer, "entry": layer + 1} for layer in range(64))


TINY = KeyMap(
    rules=(
        Rule("encoder.layers.{layer}", "encoder.{layer}", _tiny),
        Rule("decoder.layers.{layer}", "decoder.{entry}", _tiny),
    ),
)
"""TAESD as its author publishes it, in two files: https://github.com/madebyollin/taesd"""

# The text encoders: OpenAI's CLIP as transformers names it, and OpenCLIP with names of its own.

_WITHOUT_PREFIX = tuple(
    Rule(f"text_model.{module}", module) for module in ("embeddings", "encoder", "final_layer_norm")
)
"""What transformers before 4.0 and from 5.6 saves without `text_model.`."""

_POSITIONS = (Extra("text_model.embeddings.position_ids"), Extra("embeddings.position_ids"), Extra("logit_scale"))


def has_projection(config: Json) -> bool:
    """True when the text encoder's config asks for its projection."""
    return "CLIPTextModelWithProjection" in (config.get("architectures") or ())


def _projection(config: Json) -> Iterator[Fields]:
    if has_projection(config):
        yield {}


def _no_projection(config: Json) -> Iterator[Fields]:
    """Without a projection the states before the last layer are used, so that the layer is left out of the folder."""
    if not has_projection(config):
        yield {"layer": _of(config, "num_hidden_layers")}


def _layers(config: Json) -> Iterator[Fields]:
    yield from ({"layer": layer} for layer in range(_of(config, "num_hidden_layers")))


CLIP = KeyMap(
    rules=(Rule("text_model", "text_model"), Rule("text_projection", "text_projection", _projection)),
    spellings=_WITHOUT_PREFIX,
    extras=(*_POSITIONS, Extra("text_projection", _no_projection)),
)
CLIP_FOLDER = KeyMap(
    spellings=_WITHOUT_PREFIX, extras=(*_POSITIONS, Extra("text_projection", _no_projection)), lenient=True
)

_FOLDER_LAYER, _SINGLE_LAYER = "text_model.encoder.layers.{layer}", "transformer.resblocks.{layer}"

OPENCLIP = KeyMap(
    rules=(
        Rule("text_model.embeddings.token_embedding", "token_embedding"),
        Rule("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        Rule("text_model.final_layer_norm", "ln_final"),
        Rule("text_projection.weight", "text_projection", _projection, TRANSPOSED),
        Rule(f"{_FOLDER_LAYER}.layer_norm1", f"{_SINGLE_LAYER}.ln_1", _layers),
        Rule(f"{_FOLDER_LAYER}.layer_norm2", f"{_SINGLE_LAYER}.ln_2", _layers),
        Rule(f"{_FOLDER_LAYER}.mlp.fc1", f"{_SINGLE_LAYER}.mlp.c_fc", _layers),
        Rule(f"{_FOLDER_LAYER}.mlp.fc2", f"{_SINGLE_LAYER}.mlp.c_proj", _layers),
        Rule(f"{_FOLDER_LAYER}.self_attn.out_proj", f"{_SINGLE_LAYER}.attn.out_proj", _layers),
        *(
            Rule(
                f"{_FOLDER_LAYER}.self_attn.{name}_proj.{leaf}",
                f"{_SINGLE_LAYER}.attn.in_proj_{leaf}",
                _layers,
                Third(index),
            )
            for index, name in enumerate("qkv")
            for leaf in ("weight", "bias")
        ),
    ),
    extras=(
        Extra("logit_scale"),
        Extra("attn_mask"),
        Extra("text_projection", _no_projection),
        Extra(_SINGLE_LAYER, _no_projection),
    ),
)
