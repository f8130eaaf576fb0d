"""The network as a drawing sees it: the words that hold at a noise level, and all that rides along with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser, denoiser
from fromnoise.diffusion.guidance import Role
from fromnoise.diffusion.schedules import NoiseSchedule
from fromnoise.models.controlnet import ControlNet
from fromnoise.models.extras import Control, Extras, Reuse
from fromnoise.models.tiling import over_tiles
from fromnoise.request import TILE_SHARE, Request
from fromnoise.text import Conditioning

Place = tuple[slice, slice]
"""Rows and columns of latents."""

WHOLE: Place = (slice(None), slice(None))


def grown(span: slice, by: int) -> slice:
    """A span of latents in something that is so many times as large."""
    return span if span == slice(None) else slice(span.start * by, span.stop * by)


Predict = Callable[[Tensor, Tensor, Tensor, Extras], Tensor]
"""A U-Net, or an engine that runs one: latents, times, words and extras to its answer."""


@dataclass(frozen=True)
class Said:
    """The words of one step: each composed prompt, and the negative one."""

    positives: tuple[Conditioning, ...]
    negative: Conditioning

    def rows(self, roles: Sequence[Role], count: int) -> Conditioning:
        """A batch's words in the order in which guidance asks: for every role each prompt, `count` pictures each."""
        asked = [each for role in roles for each in ((self.negative,) if role == "unconditional" else self.positives)]
        words = torch.cat([each.words for each in asked]).repeat_interleave(count, 0)
        pooled = [each.pooled for each in asked if each.pooled is not None]
        return Conditioning(words, torch.cat(pooled).repeat_interleave(count, 0) if pooled else None)


@dataclass(frozen=True)
class Following:
    """A ControlNet at work: its picture as (1, 3, H, W) in [0, 1], and between which shares of the steps."""

    network: ControlNet
    hint: Tensor
    weight: float
    start: float
    end: float

    def acts(self, step: int, steps: int) -> bool:
        """True when the whole step lies between start and end (diffusers' rule)."""
        return self.start <= step / steps and (step + 1) / steps <= self.end

    def __call__(self, x: Tensor, time: Tensor, words: Tensor, extras: Extras, place: Place = WHOLE) -> Control:
        """What it adds to a batch, which shows the `place` (in latents) of the picture."""
        factor = 2 ** (len(self.network.config.conditioning_embedding_out_channels) - 1)
        hint = self.hint[..., *(grown(each, factor) for each in place)].to(x).expand(len(x), -1, -1, -1)
        return self.network(x, time, words, hint, extras).scaled(self.weight)


@dataclass(frozen=True)
class Network:
    """One run's network. `said(step)` gives a step's words, counted from 0; B is the batch of a call.

    `adapted` puts adapters on for a call, `time_ids` (6,) are SDXL's sizes, `known` (count, 1 + C, h, w) an inpainting
    network's mask and masked latents, and `embedded_guidance` an LCM's guidance scale. What is larger than `tile`
    latents is shown to the network in overlapping tiles, whose answers are blended at every step (Bar-Tal et al. 2023,
    "MultiDiffusion"), so that no step leaves a seam. `merge` and `reuse` are those of `Extras`.
    """

    unet: Predict
    schedule: NoiseSchedule
    prediction: str
    sigmas: Tensor
    said: Callable[[int], Said]
    count: int
    adapted: AbstractContextManager[Any] = field(default_factory=nullcontext)
    time_ids: Tensor | None = None
    known: Tensor | None = None
    embedded_guidance: float | None = None
    following: Sequence[Following] = ()
    tile: int | None = None
    merge: float = 0.0
    reuse: Reuse | None = None

    def __call__(self, roles: Sequence[Role]) -> Denoiser:
        """The denoiser of a batch that holds the pictures once for each of the roles."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            step = self.step_at(float(sigma.max()))
            said = self.said(step)
            words = said.rows(roles, self.count)
            extras = self.extras(words, roles, len(said.positives))

            def predict(x: Tensor, time: Tensor) -> Tensor:
                return self.predict(x.to(words.words.dtype), time, words.words, extras, step)

            return denoiser(predict, self.schedule, self.prediction)(x, sigma)

        return denoise

    def step_at(self, sigma: float) -> int:
        """The step that a noise level belongs to: the last one that starts at or above it."""
        starts = self.sigmas[:-1]
        return max(int((starts >= sigma * (1 - 1e-6)).sum()) - 1, 0)

    def predict(self, x: Tensor, time: Tensor, words: Tensor, extras: Extras, step: int) -> Tensor:
        """The network's answer to scaled latents (B, C, h, w), in float32, tile by tile where they are large."""
        height, width = x.shape[-2:]
        if self.tile is None or max(height, width) <= self.tile:
            return self._predict(x, time, words, extras, step)
        alone = replace(extras, reuse=None)  # what deep layers keep belongs to one tile

        def run(rows: slice, columns: slice) -> Tensor:
            return self._predict(x[..., rows, columns], time, words, alone, step, (rows, columns))

        return over_tiles(run, (height, width), self.tile, self.tile // TILE_SHARE)

    def _predict(
        self, x: Tensor, time: Tensor, words: Tensor, extras: Extras, step: int, place: Place = WHOLE
    ) -> Tensor:
        steps = len(self.sigmas) - 1
        controls = [each(x, time, words, extras, place) for each in self.following if each.acts(step, steps)]
        if controls:
            extras = replace(extras, control=reduce(add, controls))
        if self.known is not None:
            known = self.known[..., *place].to(x)
            x = torch.cat([x, known.repeat(len(x) // self.count, 1, 1, 1)], 1)
        with self.adapted:
            return self.unet(x, time, words, extras).float()

    def extras(self, words: Conditioning, roles: Sequence[Role], prompts: int) -> Extras:
        """What goes with a batch's words."""
        batch, device = len(words.words), words.words.device
        copies = [role == "perturbed" for role in roles for _ in range(1 if role == "unconditional" else prompts)]
        each = batch // len(copies)
        perturbed = torch.tensor(copies, device=device).repeat_interleave(each) if any(copies) else None
        guidance = self.embedded_guidance
        return Extras(
            pooled=words.pooled,
            time_ids=None if self.time_ids is None else self.time_ids.to(device).expand(batch, -1),
            guidance=None if guidance is None else torch.full((batch,), guidance - 1.0, device=device),
            perturbed=perturbed,
            merge=self.merge,
            reuse=self.reuse,
        )


def reusing(request: Request, state: tuple[Tensor, ...], device: torch.device) -> Reuse | None:
    """The run's memory of deep layers as the request asks for it, going on from a saved Step's; None without one."""
    if request.reuse is None:
        return None
    reuse = Reuse(*request.reuse)
    reuse.state = tuple(each.to(device) for each in state)
    return reuse
