"""What conditions a drawing, and how it is made from weighted words.

Shapes: B prompts, M positions of all chunks, C width of all encoders, P width of the pooled state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.runtime.errors import UsageError


@dataclass(frozen=True)
class Conditioning:
    """States of every position `words` (B, M, C), and the pooled states (B, P) that SDXL reads beside them."""

    words: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        """How many prompts."""
        return len(self.words)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Conditioning:
        """The same elsewhere or in another type."""
        pooled = None if self.pooled is None else self.pooled.to(device, dtype)
        return Conditioning(self.words.to(device, dtype), pooled)

    def repeat(self, count: int) -> Conditioning:
        """Every prompt `count` times, neighbours being the same: (B * count, …)."""
        pooled = None if self.pooled is None else self.pooled.repeat_interleave(count, 0)
        return Conditioning(self.words.repeat_interleave(count, 0), pooled)

    def __getitem__(self, rows: slice) -> Conditioning:
        """Some of the prompts."""
        return Conditioning(self.words[rows], None if self.pooled is None else self.pooled[rows])


@dataclass(frozen=True)
class Reading:
    """Which states of its text encoders a model was trained on.

    `clip_skip` is the layer that is read, counted from the end. `raw` states are those before the final norm, and come
    with the last encoder's pooled state. `zero_negative` says that an empty negative prompt is zeros
    (`force_zeros_for_empty_prompt` in diffusers' model index).
    """

    clip_skip: int = 1
    raw: bool = False
    zero_negative: bool = False


READINGS: Mapping[str, Reading] = MappingProxyType(
    {"sd1": Reading(), "sd2": Reading(), "sdxl": Reading(clip_skip=2, raw=True, zero_negative=True)}
)
"""By generation. The text encoder published with SD 2 ends with the layer that it reads; SDXL reads the penultimate
states of two, side by side (Podell et al. 2023)."""


def mix(one: Conditioning, other: Conditioning, share: float = 0.5, *, spherical: bool = False) -> Conditioning:
    """Half skunk, half puppy: `share` in [0, 1] of `other`, the rest of `one`, position by position.

    Linear, or along the arc between the two states (Shoemake 1985, slerp). UsageError when one has more chunks.
    """
    if one.words.shape != other.words.shape:
        raise UsageError("only prompts of as many chunks can be mixed; encode both in one call, which pads them")
    blend = slerp if spherical else torch.lerp
    pooled = None if one.pooled is None or other.pooled is None else blend(one.pooled, other.pooled, share)
    return Conditioning(blend(one.words, other.words, share), pooled)


def slerp(one: Tensor, other: Tensor, share: float) -> Tensor:
    """From vectors (…, C) to others along the arc between them; a straight line where there is none to speak of."""
    cosine = F.cosine_similarity(one.float(), other.float(), dim=-1)[..., None]
    angle = torch.acos(cosine.clamp(-1, 1))
    curved = (torch.sin((1 - share) * angle) * one + torch.sin(share * angle) * other) / torch.sin(angle)
    straight = (cosine.abs() > _NEARLY_PARALLEL) | ~torch.isfinite(curved)
    return torch.where(straight, torch.lerp(one, other, share), curved).to(one.dtype)


_NEARLY_PARALLEL = 0.9995
