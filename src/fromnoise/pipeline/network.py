"""The network as a drawing sees it: the words that hold at a noise level, and all that rides along with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser, denoiser
from fromnoise.diffusion.guidance import Role
from fromnoise.diffusion.schedules import NoiseSchedule
from fromnoise.models.controlnet import ControlNet
from fromnoise.models.extras import Control, Extras
from fromnoise.models.unet import UNet
from fromnoise.text import Conditioning


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

    def __call__(self, x: Tensor, time: Tensor, words: Tensor, extras: Extras) -> Control:
        """What it adds to a batch."""
        hint = self.hint.to(x).expand(len(x), -1, -1, -1)
        return self.network(x, time, words, hint, extras).scaled(self.weight)


@dataclass(frozen=True)
class Network:
    """One run's network. `said(step)` gives a step's words, counted from 0; B is the batch of a call.

    `adapted` puts adapters on for a call, `time_ids` (6,) are SDXL's sizes, `known` (count, 1 + C, h, w) an inpainting
    network's mask and masked latents, and `embedded_guidance` an LCM's guidance scale.
    """

    unet: UNet
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
        """The network's answer to scaled latents (B, C, h, w), in float32."""
        steps = len(self.sigmas) - 1
        controls = [each(x, time, words, extras) for each in self.following if each.acts(step, steps)]
        if controls:
            extras = Extras(extras.pooled, extras.time_ids, extras.guidance, reduce(add, controls), extras.perturbed)
        if self.known is not None:
            x = torch.cat([x, self.known.to(x).repeat(len(x) // self.count, 1, 1, 1)], 1)
        with self.adapted:
            return self.unet(x, time, words, extras).float()

    def extras(self, words: Conditioning, roles: Sequence[Role], prompts: int) -> Extras:
        """What goes with a batch's words."""
        batch, device = len(words.words), words.words.device
        copies = [role == "perturbed" for role in roles for _ in range(1 if role == "unconditional" else prompts)]
        perturbed = torch.tensor(copies, device=device).repeat_interleave(self.count) if any(copies) else None
        guidance = self.embedded_guidance
        return Extras(
            pooled=words.pooled,
            time_ids=None if self.time_ids is None else self.time_ids.to(device).expand(batch, -1),
            guidance=None if guidance is None else torch.full((batch,), guidance - 1.0, device=device),
            perturbed=perturbed,
        )
