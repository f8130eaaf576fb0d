"""Drift: how far predictions for prompts that have nothing to do with the pictures have moved from the base model's."""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import scalings
from fromnoise.runtime.seeds import generator
from fromnoise.training.learner import Learner
from fromnoise.training.tuning.task import Noisy, TuningTask

CONTROLS = ("a cat", "a house", "a red apple", "a car", "a tree", "a bird", "a flower", "a hat")
"""What every model knows, and nobody's pictures should change."""

EARLIEST = 0.5
"""The share of the schedule, from its noisy end, where a prompt decides what a picture becomes."""


class Controls:
    """Control prompts on fixed noise; `base` holds what the base model made of them."""

    def __init__(self, task: TuningTask) -> None:
        self.batches = _batches(task)
        self.base: list[Tensor] = []

    def remember(self, learner: Learner) -> None:
        """Take the weights of now for the base model's."""
        self.base = self._predicted(learner)

    def drift(self, learner: Learner) -> float:
        """The distance of predicted pictures from the base model's, relative to theirs: 0 is none."""
        moved = [now - base for now, base in zip(self._predicted(learner), self.base, strict=True)]
        return float(_length(moved) / _length(self.base))

    @torch.no_grad()
    def _predicted(self, learner: Learner) -> list[Tensor]:
        """The pictures that the network expects, as latents."""
        task: TuningTask = learner.task  # type: ignore[assignment]
        made = []
        for each in self.batches:
            with learner.around_predict():
                answer = task.predict(each).float()
            scale = scalings(task.prediction, task.schedule.sigmas[each.times.cpu()].float().to(answer.device))
            made.append(scale.skip / scale.input * each.example.input + scale.out * answer)
        return made


def _batches(task: TuningTask) -> list[Noisy]:
    """Pure noise: each prompt its own, at timesteps evenly from the noisier part of the schedule."""
    shape = task.pools[0].samples[0].shape
    noise = [torch.randn(shape, generator=generator("control", task.recipe.seed, each)) for each in CONTROLS]
    spread = [(index + 0.5) / len(CONTROLS) for index in range(len(CONTROLS))]
    times = [int((1 - EARLIEST * each) * len(task.schedule)) for each in spread]
    rows = list(zip([torch.zeros(shape)] * len(noise), noise, times, CONTROLS, strict=True))
    size = task.recipe.batch
    return [task.noisy(*zip(*rows[start : start + size], strict=True)) for start in range(0, len(rows), size)]


def _length(parts: list[Tensor]) -> Tensor:
    return torch.cat([each.flatten() for each in parts]).norm()
