"""The keys of adapter files: which part, which layer and which factor each of them names.

All the layouts are tables here. https://github.com/kohya-ss/sd-scripts (networks/lora.py), https://github.com/huggingface/peft,
https://github.com/KohakuBlueleaf/LyCORIS and diffusers' loaders, past and present.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import nn

from fromnoise.checkpoints.layouts import UNET

SPELLINGS = (
    (re.compile(r"^base_model\.model\."), ""),
    (re.compile(r"\.processor\.(to_[qkv])_lora\."), r".\1.lora."),
    (re.compile(r"\.processor\.to_out_lora\."), ".to_out.0.lora."),
    (re.compile(r"\.lora_linear_layer\."), ".lora."),
    (re.compile(r"\.lora\.(up|down)\.weight$"), r".lora_\1.weight"),
    (re.compile(r"\.lora_A\.(?:\w+\.)?weight$"), ".lora_down.weight"),
    (re.compile(r"\.lora_B\.(?:\w+\.)?weight$"), ".lora_up.weight"),
    (re.compile(r"\.((?:hada|lokr)_\w+)\.\w+$"), r".\1"),
)
"""Other ways to write a key, and what each becomes: the names of kohya and LyCORIS."""

PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "lora_unet_": "unet",
        "lora_te1_": "text_encoder",
        "lora_te2_": "text_encoder_2",
        "lora_te_": "text_encoder",
        "lycoris_": "unet",
        "diffusion_model.": "unet",
        "unet.": "unet",
        "text_encoder_2.": "text_encoder_2",
        "text_encoder.": "text_encoder",
        "text_model.": "text_encoder",
        "encoder.layers.": "text_encoder",
        "": "unet",
    }
)
"""The part that a key's beginning names; the first that fits. Without any of them, it is the U-Net's."""

KEPT = ("text_model.", "encoder.layers.")
"""Prefixes that belong to the layer's name as well."""

LORA: Mapping[str, str] = MappingProxyType(
    {"lora_up.weight": "up", "lora_down.weight": "down", "lora_mid.weight": "mid"}
)
LOHA: Mapping[str, str] = MappingProxyType(
    {f"hada_{name}": name for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
)
LOKR: Mapping[str, str] = MappingProxyType(
    {f"lokr_{name}": name for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
)
"""A kind's factors: how a key ends, and the field of its class in `factors`."""

NUMBERS = ("alpha", "scalar")
"""Numbers that a layer may have beside its factors, whatever the kind."""

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "dora_scale": "DoRA",
        "lora_magnitude_vector": "DoRA",
        "lora_A.bias": "LoRA with biases",
        "lora_B.bias": "LoRA with biases",
        "lora_up.bias": "LoRA with biases",
        "diff": "full differences",
        "diff_b": "full differences",
        "w_norm": "trained norms",
        "b_norm": "trained norms",
        "oft_blocks": "OFT or BOFT",
        "oft_diag": "OFT or BOFT",
        "on_input": "IA3",
        "a1.weight": "GLoRA",
        "glora_A1.weight": "GLoRA",
    }
)
"""How keys end of kinds that are known and not supported."""

_ENDINGS = (*LORA, *LOHA, *LOKR, *NUMBERS)


class Key(NamedTuple):
    """A key taken apart: the part by diffusers' name, the layer as the file names it, and its last piece."""

    part: str
    layer: str
    leaf: str


def read_key(key: str) -> Key | None:
    """A key taken apart; None when its ending is that of no factor."""
    for pattern, plain in SPELLINGS:
        key = pattern.sub(plain, key)
    leaf = next((each for each in _ENDINGS if key.endswith(f".{each}")), None)
    if leaf is None:
        return None
    prefix = next(each for each in PREFIXES if key.startswith(each))
    start = 0 if prefix in KEPT else len(prefix)
    return Key(PREFIXES[prefix], key[start : -len(leaf) - 1], leaf)


def refused_kind(key: str) -> str | None:
    """The kind of an unsupported adapter that a key is a sign of."""
    return next((kind for end, kind in REFUSED.items() if key.removesuffix(".weight").endswith(f".{end}")
                 or key.endswith(f".{end}")), None)  # fmt: skip


def layers(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """A part's layers that an adapter can change, by name."""
    return {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}


def spellings(part: str, module: nn.Module) -> dict[str, str]:
    """Every name that an adapter's file may have for a layer of a part, and the layer's own name.

    They are diffusers' names, CompVis' and SGM's for a U-Net, and with underscores for dots, as kohya writes them.
    """
    table: dict[str, str] = {}
    others = _single_file_names(module) if part == "unet" else _short_names(module)
    for name, other in others:
        for each in (name, other):
            table.setdefault(each, name)
            table.setdefault(each.replace(".", "_"), name)
    return table


def _single_file_names(unet: nn.Module) -> Iterator[tuple[str, str]]:
    """Each layer's own name, and that in the single-file layout."""
    config = unet.config.to_json()  # type: ignore[union-attr,operator]
    table = {folder: single for rule in UNET.rules for folder, single, _ in rule.expanded(config)}
    for name in layers(unet):
        head = name
        while head and head not in table:
            head = head.rpartition(".")[0]
        yield name, table[head] + name[len(head) :] if head else name


def _short_names(text_encoder: nn.Module) -> Iterator[tuple[str, str]]:
    """Each layer's own name, and that of transformers' releases that leave `text_model.` out."""
    for name in layers(text_encoder):
        yield name, name.removeprefix("text_model.")
