"""What a model should go on drawing while it learns something else: its own answers, learnt again beside the new.

Prior preservation (Ruiz et al. 2023, section 3.2) with the base model's predictions for targets instead of finished
pictures (Li & Hoiem 2017, "Learning without forgetting"): where nothing has moved, nothing pulls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fromnoise.diffusion.denoiser import scalings
from fromnoise.diffusion.objectives import Example, answer_weight
from fromnoise.pipeline import Pipeline
from fromnoise.runtime.device import mixed_precision
from fromnoise.training.order import draws
from fromnoise.training.processes import Processes
from fromnoise.training.tuning.samples import Sample, Told
from fromnoise.training.tuning.task import Learns, Noisy, Tuning, TuningTask
from fromnoise.training.tuning.trajectories import CHUNK, Teaching, drawn, known_prompts, knows

STEPS = 8
"""Of each drawing that states are taken from."""

WORDLESS = 4
"""Of so many states one is answered without words, as guidance asks for it too."""

APART = 7
"""What seeds differ by from those of the pictures."""

PLAIN = 2
"""Of so many prompts one names no style."""


class Keeping:
    """States of the base model's own drawings (N, C, h, w) at noise levels (N,), and its answers to them."""

    def __init__(self, teacher: TuningTask, samples: Sequence[Sample], sigmas: Tensor, weight: float) -> None:
        """`samples` are trajectories through the levels `sigmas`, the last of which is 0; `teacher` is the base."""
        rows = [(sample, level) for sample in samples for level in range(len(sigmas) - 1)]
        self.teacher, self.weight = teacher, weight
        self.captions = [each.captions[0] if index % WORDLESS else "" for index, (each, _) in enumerate(rows)]
        self.sigma = torch.stack([sigmas[level] for _, level in rows]).float()
        self.states = torch.stack([sample.latents[level] for sample, level in rows]).float()
        self.answers = torch.cat([self._answers(each) for each in torch.arange(len(rows)).split(CHUNK)])

    def batch(self, seed: int, step: int, size: int, processes: Processes) -> Noisy:
        """The states of a step: a function of the step alone."""
        part = step * processes.count + processes.rank
        chosen = torch.tensor([each.sample for each in draws(seed + APART, part, size, len(self.states))])
        made, times = self._inputs(chosen)
        weight = answer_weight(self.sigma[chosen], self.teacher.prediction, self.teacher.recipe.gamma) * self.weight
        device = self.teacher.pipeline.device
        example = Example(made, self.answers[chosen].to(device), weight.to(device))
        return Noisy(example, times, self._said(chosen))

    @torch.no_grad()
    def _answers(self, chosen: Tensor) -> Tensor:
        made, times = self._inputs(chosen)
        with mixed_precision(made.device):
            channels_last = made.contiguous(memory_format=torch.channels_last)
            return self.teacher.answer(channels_last, times, self._said(chosen)).float().cpu()

    def _inputs(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The network's scaled input and its timesteps."""
        sigma, device = self.sigma[chosen], self.teacher.pipeline.device
        scaled = scalings(self.teacher.prediction, sigma).input * self.states[chosen]
        return scaled.to(device), self.teacher.schedule.time(sigma).to(device)

    def _said(self, chosen: Tensor) -> tuple[str, ...]:
        return tuple(self.captions[int(each)] for each in chosen)


def keeping(pipeline: Pipeline, folder: Path, recipe: Tuning, count: int, weight: float, told: Told) -> Keeping | None:
    """`count` drawings of what the base knows, kept in `folder`; None for none, or where it says nothing of it."""
    if not count or not knows(pipeline):
        return None
    teacher = TuningTask(pipeline, Learns(nn.Module(), pipeline.prompts), (), recipe)
    teaching = Teaching(STEPS, STEPS, pipeline.habits.guidance, "dpmpp-2m", "dpmpp-2m", pipeline.habits.schedule)
    prompts = known_prompts(pipeline, count, recipe.seed + APART, plain=PLAIN)
    samples = drawn(teacher, prompts, teaching, folder, told)
    return Keeping(teacher, samples, pipeline.sigmas(teaching.request()).float(), weight)


def joined(one: Noisy, other: Noisy) -> Noisy:
    """Both batches as one."""
    example = Example(*(torch.cat(pair) for pair in zip(one.example, other.example, strict=True)))
    return Noisy(example, torch.cat([one.times.float(), other.times]), one.captions + other.captions)
