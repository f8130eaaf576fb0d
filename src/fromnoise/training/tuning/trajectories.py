"""What a few-step student learns from: a teacher's guided way from noise to picture, seen at a few noise levels.

A trajectory is a Sample whose latents (jumps + 1, C, h, w), float32, are the states of one drawing, noise first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fromnoise.data.captions import with_article
from fromnoise.diffusion.denoiser import denoiser
from fromnoise.diffusion.guidance import batched_pair, classifier_free
from fromnoise.diffusion.samplers import SAMPLERS
from fromnoise.pipeline import Pipeline
from fromnoise.request import Request
from fromnoise.runtime.device import mixed_precision
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.seeds import PictureNoise, generator
from fromnoise.text.known import KnownConcepts
from fromnoise.training.claims import claim
from fromnoise.training.saving import read, save
from fromnoise.training.tuning.pictures import read_captioned, require_captions
from fromnoise.training.tuning.samples import Sample, Told

if TYPE_CHECKING:
    from fromnoise.training.tuning.task import TuningTask

CHUNK = 32
"""Trajectories drawn at once and kept in one file."""

PLAIN = 10
"""Of so many prompts of the model's own, one names no style."""


@dataclass(frozen=True)
class Teaching:
    """How the teacher draws: in `steps` steps with the sampler `teacher`, of which a student makes `jumps`."""

    steps: int
    jumps: int
    guidance: float
    teacher: str
    sampler: str
    schedule: str

    def request(self) -> Request:
        """The teacher's settings; UsageError where the jumps don't divide its steps."""
        if self.steps % self.jumps:
            raise UsageError(f"{self.jumps} jumps don't divide {self.steps} steps of the teacher; try {self.jumps * 4}")
        return Request(steps=self.steps, guidance=self.guidance, sampler=self.teacher, schedule=self.schedule)

    def student(self) -> Request:
        """The settings that the student will be drawn with."""
        return Request(steps=self.jumps, guidance=1.0, sampler=self.sampler, schedule=self.schedule)


def read_prompts(sources: Sequence[Path], pipeline: Pipeline, count: int, seed: int) -> list[str]:
    """`count` prompts: the lines of .txt files and the captions of pictures, in turn, or else the model's own concepts.

    Raises UsageError where nothing is given and the model's folder does not say what it knows.
    """
    found = [prompt for source in sources for prompt in _read(Path(source).expanduser())]
    if not found:
        found = known_prompts(pipeline, count, seed)
    order = torch.randperm(len(found), generator=generator("prompts", seed)).tolist()
    return [found[order[index % len(found)]] for index in range(count)]


def knows(pipeline: Pipeline) -> KnownConcepts | None:
    """What the model's folder says that it knows; None where it says nothing."""
    return None if pipeline.path is None or not pipeline.path.is_dir() else KnownConcepts.read(pipeline.path)


def known_prompts(pipeline: Pipeline, count: int, seed: int, plain: int = PLAIN) -> list[str]:
    """Concepts that the model was trained on, all but one of `plain` in one of its styles: "an apple, noto style"."""
    known = knows(pipeline)
    if known is None:
        raise UsageError("give prompts: a .txt file with one on each line, or a folder of captioned pictures")
    own = generator("known prompts", seed)
    labels = [known.labels[int(each)] for each in torch.randint(len(known.labels), (count,), generator=own)]
    styles = torch.randint(max(len(known.styles), 1), (count,), generator=own).tolist()
    return [
        f"{with_article(label)}, {known.styles[style]} style" if known.styles and index % plain else with_article(label)
        for index, (label, style) in enumerate(zip(labels, styles, strict=True))
    ]


def drawn(task: TuningTask, prompts: Sequence[str], teaching: Teaching, folder: Path, told: Told) -> list[Sample]:
    """The teacher's trajectories of the prompts, kept in `folder` and drawn only where they are missing.

    Picture k starts from the noise of the recipe's seed + k. UsageError where what is kept was drawn for other prompts,
    by another network or with other settings.
    """
    claim(folder, {"model": task.pipeline.hash, "seed": task.recipe.seed, **asdict(teaching)})
    made: list[Sample] = []
    for first in range(0, len(prompts), CHUNK):
        path, part = folder / f"{first:06d}.pt", prompts[first : first + CHUNK]
        if not path.exists():
            save(path, {"captions": part, "states": states_of(task, part, teaching, first)})
        kept = read(path)
        if kept["captions"] != part:
            raise UsageError(f"{folder} holds the drawings of other prompts; give the same ones, or another --run")
        made += [Sample(states, (caption,)) for caption, states in zip(part, kept["states"], strict=True)]
        told(len(made), len(prompts))
    return made


@torch.no_grad()
def states_of(task: TuningTask, prompts: Sequence[str], teaching: Teaching, first: int) -> Tensor:
    """The latents of each prompt's drawing at the student's noise levels, (B, jumps + 1, C, h, w) float32."""
    pipeline, settings = task.pipeline, teaching.request()
    seeds = [task.recipe.seed + first + index for index in range(len(prompts))]
    side = pipeline.unet.config.sample_size
    noise = PictureNoise(seeds, (pipeline.unet.config.in_channels, side, side))
    sigmas = pipeline.sigmas(settings)
    x = noise().to(pipeline.device) * pipeline.scheduler.first_scale(teaching.student(), float(sigmas[0]))
    said = ("",) * len(prompts) + tuple(prompts)

    def predict(noisy: Tensor, time: Tensor) -> Tensor:
        return task.answer(noisy, time, said).float()

    denoise = classifier_free(batched_pair(denoiser(predict, task.schedule, task.prediction)), teaching.guidance)
    seen, every = [x], teaching.steps // teaching.jumps
    with mixed_precision(pipeline.device):
        for step in SAMPLERS[teaching.teacher](denoise, x, sigmas, noise=noise):
            if step.index % every == 0:
                seen.append(step.x)
    return torch.stack(seen, 1).cpu()


def _read(source: Path) -> list[str]:
    if source.suffix == ".txt" and source.is_file():
        return _lines(source)
    pictures = read_captioned([source])
    require_captions(pictures, ", or give a .txt file of prompts")
    return [str(each.caption) for each in pictures]


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the prompts {path}: {error}") from error
    return [line for line in lines if line]
