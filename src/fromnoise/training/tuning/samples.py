"""Pictures as a trainer uses them: latents kept in memory, in pools whose batches are of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fromnoise.images.convert import to_tensor
from fromnoise.images.opening import nearest_size
from fromnoise.pipeline import Pipeline
from fromnoise.training.order import Draw, draws
from fromnoise.training.tuning.pictures import Captioned, fitted

APART = 1_000_003
"""What seeds of a pool's sizes differ by."""

ENOUGH = 10
"""Pictures from which on a tenth can be spared."""

NEARER = 0.85
"""The share of each side that a nearer view shows."""

Told = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""


def quiet(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Sample:
    """A picture's latents (1 or 2, C, h, w) float16, as it is and perhaps mirrored, and the captions it may get."""

    latents: Tensor
    captions: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, h, w)."""
        return tuple(self.latents.shape[1:])


class Pool:
    """Samples of which every batch is of one size; `weight` is how much they count in the loss.

    Sizes take turns by how many samples they have. Which samples a step gets is a function of the step alone.
    """

    def __init__(self, samples: Sequence[Sample], weight: float = 1.0) -> None:
        self.samples, self.weight = tuple(samples), weight
        shapes = sorted({each.shape for each in samples})
        self.buckets = [[each for each in samples if each.shape == shape] for shape in shapes]
        self._turns: list[tuple[int, int]] = []
        self._served = [0] * len(self.buckets)

    def batch(self, seed: int, step: int, size: int, part: int = 0, parts: int = 1) -> list[tuple[Sample, Draw]]:
        """The samples of a step, each with its private randomness: of `size * parts` those of one part."""
        bucket, index = self._turn(step)
        chosen = draws(seed + APART * bucket, index * parts + part, size, len(self.buckets[bucket]))
        return [(self.buckets[bucket][each.sample], each) for each in chosen]

    def _turn(self, step: int) -> tuple[int, int]:
        """The size of a step, and how many steps had it before: always the one farthest behind its share."""
        while len(self._turns) <= step:
            due = [len(each) * (len(self._turns) + 1) / len(self.samples) for each in self.buckets]
            bucket = max(range(len(due)), key=lambda each: due[each] - self._served[each])
            self._turns.append((bucket, self._served[bucket]))
            self._served[bucket] += 1
        return self._turns[step]


def multiple_of(pipeline: Pipeline) -> int:
    """What sides of training pictures are multiples of: the autoencoder's factor times the U-Net's."""
    return pipeline.multiple * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)


@torch.no_grad()
def encoded(
    pipeline: Pipeline,
    pictures: Sequence[Captioned],
    captions: Sequence[tuple[str, ...]],
    *,
    flip: bool = False,
    buckets: bool = False,
    told: Told = quiet,
) -> list[Sample]:
    """Encode pictures once, at the model's own size, or with `buckets` at the size of that area nearest their shape."""
    made = []
    for picture, texts in zip(pictures, captions, strict=True):
        image = picture.open()
        size = nearest_size(image.size, pipeline.size, multiple_of(pipeline)) if buckets else pipeline.size
        pixels = to_tensor(fitted(image, size)).to(pipeline.device, pipeline.dtype)
        sides = [pixels, pixels.flip(3)] if flip else [pixels]
        latents = torch.cat([pipeline.autoencoder.encode(each) for each in sides])
        made.append(Sample(latents.to("cpu", torch.float16), texts))
        told(len(made), len(pictures))
    return made


@dataclass(frozen=True)
class HeldOut:
    """What a loss is measured on that no step learns from, and what to call it."""

    samples: list[Sample]
    name: str


def parted(
    pipeline: Pipeline,
    pictures: Sequence[Captioned],
    captions: Sequence[tuple[str, ...]],
    *,
    flip: bool = False,
    buckets: bool = False,
    told: Told = quiet,
) -> tuple[list[Sample], HeldOut]:
    """What is learnt from and what is held out: every tenth picture.

    Of fewer than `ENOUGH` all are learnt from, and nearer views of them are held out: other pixels of the same things,
    on which the loss rises when pictures are learnt by heart.
    """
    samples = encoded(pipeline, pictures, captions, flip=flip, buckets=buckets, told=told)
    if len(samples) < ENOUGH:
        nearer = [replace(each, nearer=(index, NEARER)) for index, each in enumerate(pictures)]
        return samples, HeldOut(encoded(pipeline, nearer, captions, buckets=buckets), "nearer views of the pictures")
    learnt = [each for index, each in enumerate(samples) if index % 10 != 9]
    return learnt, HeldOut(samples[9::10], "held-out pictures")
