"""How many steps a sampler takes, and what it must remember to go on from one of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from fromnoise.diffusion.samplers.dpm_solver import fast_orders
from fromnoise.diffusion.samplers.step import Step

REMEMBERED: Mapping[str, int] = MappingProxyType(
    {"lms": 3, "plms": 3, "dpmpp-2m": 1, "dpmpp-2m-sde": 1, "dpmpp-2m-cfg-pp": 1, "dpmpp-3m-sde": 2}
)
"""Predictions or slopes of earlier steps that a sampler makes use of, where there are so many."""

NEED_THEIR_OWN = frozenset({"unipc", "dpm-adaptive"})
"""Samplers that can't go on without their memory; the others then begin anew from what there is."""


def step_count(sampler: str, sigmas: Tensor) -> int:
    """How many Steps there will be over `sigmas` (n + 1,); n for DPM adaptive, which takes as many as it needs."""
    calls = len(sigmas) - 1
    return len(fast_orders(calls)) if sampler == "dpm-fast" and calls else calls


def fits(sampler: str, step: Step, steps: int) -> bool:
    """True when a sampler that takes so many steps can go on from this one: its memory has the shape of its own."""
    shapes = [tuple(each.shape) for each in step.history]
    if not shapes and sampler not in NEED_THEIR_OWN:
        return True
    return shapes == _shapes(sampler, step.index, tuple(step.x.shape), steps)


def _shapes(sampler: str, index: int, x: tuple[int, ...], steps: int) -> list[tuple[int, ...]]:
    """Of the history of a Step after which `index` steps are done, on latents of shape x."""
    if index == 0:
        return []
    if sampler == "dpm-adaptive":
        return [] if steps < 2 else [x[:1], x[:1], x]
    return [x] * (min(index, 2) + 1 if sampler == "unipc" else min(index, REMEMBERED.get(sampler, 0)))
