"""Two or three checkpoints made one, tensor by tensor: memory holds one tensor of each at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fromnoise.checkpoints import Checkpoint, Part
from fromnoise.checkpoints.checkpoint import QUANTISATION
from fromnoise.checkpoints.report import first_of
from fromnoise.checkpoints.stored import Stored
from fromnoise.runtime.errors import FromnoiseError, UsageError

Mix = Callable[[Sequence[Tensor]], Tensor]
"""What becomes of the tensors of one key, all in float32."""


def weighted_sum(weight: float) -> Mix:
    """(1 - w) A + w B."""
    return lambda tensors: (1 - weight) * tensors[0] + weight * tensors[1]


def add_difference(weight: float) -> Mix:
    """A + w (B - C): what B learned beyond C, given to A."""
    return lambda tensors: tensors[0] + weight * (tensors[1] - tensors[2])


def merged(checkpoints: Sequence[Checkpoint], weight: float) -> Checkpoint:
    """A checkpoint whose tensors are mixed of two (weighted sum) or three (add difference) when they are read.

    It keeps the first one's dtypes, scheduler, tokenizers and left-overs; arithmetic is float32, and numbers that are
    not floating point are the first one's. Raises FromnoiseError naming the first keys when parts, keys or shapes
    differ, and when what is mixed is no longer finite, UsageError for another number of checkpoints or a weight that is
    no finite number.
    """
    if len(checkpoints) not in (2, 3):
        raise UsageError(f"merging takes two checkpoints, or three to add a difference, not {len(checkpoints)}")
    if not math.isfinite(weight):
        raise UsageError(f"the weight must be a number such as 0.5, not {weight:g}")
    mix = weighted_sum(weight) if len(checkpoints) == 2 else add_difference(weight)
    first, *others = checkpoints
    for other in others:
        require_same_parts(first, other)
    parts = {name: _merged_part([each.parts[name] for each in checkpoints], mix) for name in first.parts}
    return replace(first, parts=parts)


def require_same_parts(one: Checkpoint, other: Checkpoint) -> None:
    """FromnoiseError when the checkpoints have other parts, or parts with other keys or shapes, or one is in int8."""
    for each in (one, other):
        if any(QUANTISATION in part.config for part in each.parts.values()):
            raise FromnoiseError(f"{each.path} is in int8, whose numbers can't be mixed; use the original model")
    if one.parts.keys() != other.parts.keys():
        said = f"{one.path} has {', '.join(one.parts)}, {other.path} has {', '.join(other.parts)}"
        raise FromnoiseError(f"these checkpoints have different parts: {said}")
    for name, part in one.parts.items():
        _require_same_keys(part, other.parts[name])


def _require_same_keys(one: Part, other: Part) -> None:
    wrong = (
        (f"only in {one.source}", [key for key in one.tensors if key not in other.tensors]),
        (f"only in {other.source}", [key for key in other.tensors if key not in one.tensors]),
        ("of different shapes", list(_misshapen(one, other))),
    )
    said = [f"{len(keys)} keys {what} ({first_of(keys)})" for what, keys in wrong if keys]
    if said:
        families = f"{one.family} and {other.family}"
        raise FromnoiseError(f"the {one.name} of these checkpoints ({families}) are not alike: {'; '.join(said)}")


def _misshapen(one: Part, other: Part) -> Iterator[str]:
    for key, each in one.tensors.items():
        if key in other.tensors and each.shape != other.tensors[key].shape:
            yield f"{key} {list(each.shape)} and {list(other.tensors[key].shape)}"


def _merged_part(parts: Sequence[Part], mix: Mix) -> Part:
    first = parts[0]
    tensors = {
        key: _mixed(f"{key} of {first.source}", [each.tensors[key] for each in parts], mix) for key in first.tensors
    }
    return replace(first, tensors=tensors)


def _mixed(name: str, stored: Sequence[Stored], mix: Mix) -> Stored:
    first = stored[0]
    if not first.dtype.is_floating_point:
        return first

    def read() -> Tensor:
        made = mix([each.read().to(torch.float32) for each in stored]).to(first.dtype)
        if not made.float().isfinite().all():
            raise FromnoiseError(f"{name} becomes numbers that are not finite; choose a smaller weight")
        return made

    return Stored(first.shape, first.dtype, read)
