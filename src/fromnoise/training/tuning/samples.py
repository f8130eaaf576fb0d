"""Pictures as a trainer uses them: latents kept in memory, in pools whose batches are of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.images.convert import to_tensor
from fromnoise.images.opening import nearest_size
from fromnoise.pipeline import Pipeline
from fromnoise.training.order import Draw, draws
from fromnoise.training.tuning.pictures import Captioned, fitted

APART = 1_000_003
"""What seeds of a pool's sizes differ by."""

Told = Callable[[int, int], None]


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

    def batch(self, seed: int, step: int, size: int) -> list[tuple[Sample, Draw]]:
        """The samples of a step, each with its private randomness."""
        bucket, index = self._turn(step)
        chosen = draws(seed + APART * bucket, index, size, len(self.buckets[bucket]))
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
    told: Told = lambda done, total: None,
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


def held_out(samples: Sequence[Sample], least: int = 10) -> tuple[list[Sample], list[Sample]]:
    """What is learnt from and what is held out: every tenth; of fewer than `least` all are both."""
    if len(samples) < least:
        return list(samples), list(samples)
    return [each for n, each in enumerate(samples) if n % 10 != 9], list(samples[9::10])
