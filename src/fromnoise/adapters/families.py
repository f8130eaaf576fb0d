"""Which generation an adapter was trained on, and which one a U-Net is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from fromnoise.adapters.factors import Factors

TITLES: Mapping[str, str] = MappingProxyType(
    {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL"}
)
"""The generations whose adapters differ."""

WIDTHS: Mapping[int, str] = MappingProxyType({768: "sd1", 1024: "sd2", 2048: "sdxl"})
"""How wide the words are that a generation's U-Net reads."""

STATED = (
    (re.compile(r"xl", re.I), "sdxl"),
    (re.compile(r"sd_?v?-?2|v2|diffusion-2", re.I), "sd2"),
    (re.compile(r"sd_?v?-?1|v1|diffusion-1", re.I), "sd1"),
)
"""Marks in what trainers write about the base model; the first that is there counts."""

SPEAKERS = ("ss_base_model_version", "modelspec.architecture")
"""Metadata that tells the base model: of kohya's trainer, and of the ModelSpec standard."""

BASE_VERSIONS: Mapping[str, str] = MappingProxyType({"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"})
"""What kohya's trainer calls the generations in `ss_base_model_version`."""

_READS_WORDS = re.compile(r"attn2[._]to_[kv]$")


def stated_family(metadata: Mapping[str, str]) -> str | None:
    """The generation that metadata names: a key of TITLES, or what it says instead; None when it is silent."""
    for name in SPEAKERS:
        if said := metadata.get(name, "").strip():
            return next((family for sign, family in STATED if sign.search(said)), said)
    return None


def seen_family(unet: Mapping[str, Factors]) -> str | None:
    """The generation whose words a U-Net's deltas read; None when none of them does."""
    widths = (factors.size[1] for name, factors in unet.items() if _READS_WORDS.search(name))
    return next((WIDTHS[width] for width in widths if width in WIDTHS), None)


def family_of(modules: Mapping[str, nn.Module]) -> str | None:
    """The generation of a model's parts; None for one that is none of the published ones."""
    config = getattr(modules.get("unet"), "config", None)
    return WIDTHS.get(getattr(config, "cross_attention_dim", 0))


def family_of_config(unet: Mapping[str, Any]) -> str | None:
    """The same of a U-Net's JSON."""
    return WIDTHS.get(unet.get("cross_attention_dim", 0))


def title(family: str) -> str:
    """A generation in words."""
    return TITLES.get(family, family)
