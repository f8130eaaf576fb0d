"""Few steps: a LoRA learns to jump along the drawing that the guided model makes in many.

Guidance and steps are distilled at once (Meng et al. 2023, Salimans & Ho 2022) and without stages: the student starts a
few states of the teacher's own drawings and learns to reach the next of them in one step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from fromnoise.adapters import write_lora
from fromnoise.adapters.families import family_of
from fromnoise.diffusion.denoiser import scalings
from fromnoise.diffusion.objectives import Example
from fromnoise.pipeline import Pipeline
from fromnoise.pipeline.fast import FIELDS, SETTINGS
from fromnoise.request import Lora
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.seeds import generator
from fromnoise.training.tuning.factors import Dropping, Factors, learning_factors, modules_of
from fromnoise.training.tuning.lora import Ranked, new_factors
from fromnoise.training.tuning.running import How, Outcome, Result, begin, opened, tune
from fromnoise.training.tuning.samples import HeldOut, Pool, Sample, quiet
from fromnoise.training.tuning.task import Learns, Noisy, TuningTask
from fromnoise.training.tuning.trajectories import Teaching, drawn, read_prompts

HELD = 10
"""Of so many trajectories one is held out."""


@dataclass(frozen=True)
class DistillRecipe(Ranked):
    """Settings of a run: the LoRA draws in `jumps` steps what the teacher draws in `teacher_steps`.

    `trajectories` drawings of the teacher are learnt from; `guidance` 0 is the model's own. `sampler` and `schedule`
    are those that the LoRA is drawn with; `teacher` is the sampler of the teacher. What was learnt is written `gain`
    times as strong, since a squared error leaves guidance too weak, and `init` is taken for such a file. It is patient:
    the held-out loss wavers by more than it falls, until the rate does.
    """

    jumps: int = 4
    teacher_steps: int = 8
    trajectories: int = 1600
    guidance: float = 0.0
    teacher: str = "dpmpp-2m"
    gain: float = 1.3
    sampler: str = "euler"
    schedule: str = "trailing"
    rank: int = 16
    batch: int = 16
    steps: int = 2000
    rate: float = 1e-3
    warmup: int = 20
    check_every: int = 50
    sample_every: int = 200
    patience: int = 40


def train(
    sources: Sequence[Path],
    run: Path,
    recipe: DistillRecipe,
    output: Path,
    **how: Unpack[How],
) -> Result:
    """Distil in the folder `run`, whose `trajectories` keep what the teacher drew; `output` is a LoRA.

    `sources` are .txt files of prompts or captioned pictures, whose captions are read; with none the prompts are the
    concepts that the model says it knows. Raises UsageError where there are no prompts.
    """
    if recipe.gain <= 0:
        raise UsageError(f"gain is {recipe.gain:g}; it has to be above 0, 1 to write what was learnt as it is")
    pipeline = opened(recipe)
    settings = teaching(pipeline, recipe)
    prompts = read_prompts(sources, pipeline, recipe.trajectories, recipe.seed)
    factors = new_factors(pipeline, recipe, 1 / recipe.gain)
    begin(run, recipe, resume=how.get("resume", False))
    learns = learning_factors(pipeline, factors)
    teacher = TuningTask(pipeline, Learns(factors, pipeline.prompts), (), recipe)
    learnt, held = parted(drawn(teacher, prompts, settings, run / "trajectories", how.get("told", quiet)))
    return tune(
        run,
        pipeline,
        learns,
        outcome_of(factors, pipeline, recipe, settings),
        [Pool(learnt)],
        held,
        prompts[:4],
        recipe,
        output,
        kind=DistillTask,
        **how,
    )


def parted(samples: Sequence[Sample]) -> tuple[list[Sample], HeldOut]:
    """What is learnt from and what is held out: every tenth; of too few all are both."""
    if len(samples) < HELD:
        return list(samples), HeldOut(list(samples), "the teacher's drawings")
    learnt = [each for index, each in enumerate(samples) if index % HELD != HELD - 1]
    return learnt, HeldOut(list(samples[HELD - 1 :: HELD]), "held-out drawings of the teacher")


class DistillTask(TuningTask):
    """From a state of a trajectory, predict what leads to its next one in a single step."""

    @cached_property
    def levels(self) -> Tensor:
        """The noise levels of the states, (jumps + 1,), the last one 0."""
        recipe: DistillRecipe = self.recipe  # type: ignore[assignment]
        return self.pipeline.sigmas(teaching(self.pipeline, recipe).student()).float()

    def made(self) -> Iterator[Tensor]:
        """Nothing: the run's folder keeps the trajectories themselves."""
        return iter(())

    def batch(self, step: int) -> Noisy:
        """Trajectories in shuffled epochs, each with a jump by chance."""
        torch.manual_seed(generator("dropout", self.recipe.seed, step).initial_seed())
        jumps, share = len(self.levels) - 1, (self.processes.rank, self.processes.count)
        chosen = self.pools[0].batch(self.recipe.seed, step, self.recipe.batch, *share)
        return self.examples([(sample, int(draw.uniform() * jumps)) for sample, draw in chosen])

    def probes(self, samples: Sequence[Sample], count: int) -> list[Noisy]:
        """Fixed batches: all jumps of each trajectory in turn."""
        jumps, size = len(self.levels) - 1, self.recipe.batch
        rows = [(samples[index // jumps % len(samples)], index % jumps) for index in range(count)]
        return [self.examples(rows[start : start + size]) for start in range(0, count, size)]

    def examples(self, rows: Sequence[tuple[Sample, int]]) -> Noisy:
        """Trajectories, each with the jump to make along it, counted from 0."""
        jumps = torch.tensor([jump for _, jump in rows])
        states = torch.stack([each.latents[jump] for each, jump in rows])
        following = torch.stack([each.latents[jump + 1] for each, jump in rows])
        made = jump_example(states, following, self.levels[jumps], self.levels[jumps + 1], self.prediction)
        device = self.pipeline.device
        times = self.schedule.time(self.levels[jumps]).to(device)
        return Noisy(Example(*(each.to(device) for each in made)), times, tuple(each.captions[0] for each, _ in rows))


def jump_example(x: Tensor, following: Tensor, sigma: Tensor, sigma_next: Tensor, prediction: str) -> Example:
    """What the network should answer at states (B, C, h, w) so that one Euler step of theirs ends in `following`.

    x' = D + (sigma' / sigma) (x - D) solved for the picture D, and D for the network's answer (EDM, eq. 8); where
    sigma' is 0 the target is the last state itself. The weights (B,) count errors as v-prediction would: SNR + 1 on
    the picture (Salimans & Ho 2022, section 4).
    """
    ratio = (sigma_next / sigma)[:, None, None, None]
    denoised = (following - ratio * x) / (1 - ratio)
    scale = scalings(prediction, sigma)
    weight = scale.out[:, 0, 0, 0] ** 2 * (1 + sigma**-2)
    return Example(scale.input * x, (denoised - scale.skip * x) / scale.out, weight)


def teaching(pipeline: Pipeline, recipe: DistillRecipe) -> Teaching:
    """How the teacher draws, the recipe's gaps filled with the model's habits."""
    guidance = recipe.guidance or pipeline.habits.guidance
    return Teaching(recipe.teacher_steps, recipe.jumps, guidance, recipe.teacher, recipe.sampler, recipe.schedule)


def outcome_of(factors: Factors, pipeline: Pipeline, recipe: DistillRecipe, settings: Teaching) -> Outcome:
    """How the factors become a file, in float16, that says how it is to be drawn with."""

    def written(each: Dropping) -> Dropping:
        return replace(each, up=each.up.half(), down=each.down.half(), scale=each.scale * recipe.gain)

    student = settings.student()
    fields = {name: getattr(student, name) for name in FIELDS}

    def write(path: Path) -> None:
        loras = {part: {name: written(each) for name, each in named.items()} for part, named in factors.loras.items()}
        write_lora(path, loras, recipe.layout, {SETTINGS: json.dumps(fields)}, family=family_of(modules_of(pipeline)))

    return Outcome(write, lambda path: {"loras": (Lora(str(path)),), **fields})
