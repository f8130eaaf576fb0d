"""What every way of tuning learns from: noisy latents of a few pictures, and the words that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fromnoise.diffusion.objectives import Example, example, weighted_error
from fromnoise.models.extras import Extras
from fromnoise.pipeline import Pipeline
from fromnoise.runtime.seeds import generator
from fromnoise.text import Conditioning, PromptEncoder
from fromnoise.training.order import Draw
from fromnoise.training.processes import Processes
from fromnoise.training.tuning.checkpointing import forgetting
from fromnoise.training.tuning.samples import Pool, Sample

KEPT = 4096
"""Captions whose states are kept; each takes a quarter of a megabyte in SD 1.5."""

ALONE = Processes()

FEW_TOKENS = 1024
"""Positions up to which plain attention has the fastest gradient on a CPU."""


@dataclass(frozen=True)
class Tuning:
    """What all trainers of this package can be told. `model` is a folder or file, None the embedded model.

    `gamma` is Min-SNR's (0: the network's answers count alike at all noise levels), `noise_offset` the deviation of
    noise that a whole channel shares (Guttenberg 2023), `empty` the share of captions left out, `average` the length in
    steps of the averaged weights that are kept (0: none).
    Every `check_every` steps the loss on fixed noise and timesteps is measured; `patience` checks without a better one
    end the run, and so does a drift on control prompts beyond `most_drift` (0: any may be). `sample_every` 0 draws
    nothing, `sample_steps` 0 is as many as the model takes by itself; `minutes` lie between checkpoints.
    `checkpointing` saves memory and costs time; `track` writes event files for TensorBoard. Of several processes each
    learns from `batch` pictures a step.
    """

    model: str | None = None
    steps: int = 400
    batch: int = 4
    rate: float = 1e-3
    warmup: int = 10
    gamma: float = 5.0
    noise_offset: float = 0.0
    empty: float = 0.0
    flip: bool = False
    average: int = 0
    check_every: int = 25
    patience: int = 8
    most_drift: float = 0.0
    sample_every: int = 100
    sample_steps: int = 0
    minutes: float = 3.0
    checkpointing: bool = False
    track: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Noisy:
    """A batch: the network's examples, their timesteps (B,) and captions."""

    example: Example
    times: Tensor
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Learns:
    """What learns: a module that holds just that, how it acts while it does, and whether the words change with it."""

    module: nn.Module
    prompts: PromptEncoder
    adapted: AbstractContextManager[Any] = field(default_factory=nullcontext)
    text: bool = False


class Words:
    """Captions as a network reads them, cut to one chunk; kept where the text encoders stay as they are."""

    def __init__(self, prompts: PromptEncoder, learns: bool) -> None:
        self.prompts, self.learns = prompts, learns
        self.made: dict[str, Conditioning] = {}

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """One row for each caption, with gradients where the words learn."""
        if self.learns:
            return self._encode(captions)
        rows = [self._kept(each) for each in captions]
        pooled = [each.pooled for each in rows if each.pooled is not None]
        return Conditioning(torch.cat([each.words for each in rows]), torch.cat(pooled) if pooled else None)

    @torch.no_grad()
    def _kept(self, caption: str) -> Conditioning:
        if caption in self.made:
            return self.made[caption]
        with torch.autocast(self.prompts.encoders[0].device.type, enabled=False):
            made = self._encode([caption])
        if len(self.made) < KEPT:
            self.made[caption] = made
        return made

    def _encode(self, captions: Sequence[str]) -> Conditioning:
        reading = self.prompts.reading
        tokens = [each.tokenizer.encode(captions) for each in self.prompts.encoders]
        if not reading.raw:
            return Conditioning(self.prompts.encoders[0].states(tokens[0], reading.clip_skip))
        pairs = [
            each.raw_states(ids, reading.clip_skip) for each, ids in zip(self.prompts.encoders, tokens, strict=True)
        ]
        words, pooled = torch.cat([states for states, _ in pairs], -1), pairs[-1][1]
        if reading.zero_negative:
            said = torch.tensor([bool(each.strip()) for each in captions], device=words.device)
            words, pooled = words * said[:, None, None], pooled * said[:, None]
        return Conditioning(words, pooled)


class TuningTask:
    """Predict what a noisy picture showed, with the model's own schedule and prediction; only `learns` learns."""

    def __init__(
        self,
        pipeline: Pipeline,
        learns: Learns,
        pools: Sequence[Pool],
        recipe: Tuning,
        processes: Processes = ALONE,
    ) -> None:
        self.pipeline, self.learns, self.pools, self.recipe = pipeline, learns, tuple(pools), recipe
        self.processes = processes
        self.model, self.unet = learns.module, pipeline.unet.train()
        self.schedule, self.prediction = pipeline.scheduler.schedule, pipeline.scheduler.prediction
        self.words = Words(learns.prompts, learns.text)

    def batch(self, step: int) -> Noisy:
        """`batch` pictures of every pool. All that is random about them is a function of (seed, epoch, sample).

        Several processes take consecutive parts of one batch as many times as large.
        """
        rank, count = self.processes.rank, self.processes.count
        torch.manual_seed(generator("dropout", self.recipe.seed, step * count + rank).initial_seed())
        rows = [
            (*self._drawn(sample, draw), pool.weight)
            for number, pool in enumerate(self.pools)
            for sample, draw in pool.batch(self.recipe.seed + number, step, self.recipe.batch, rank, count)
        ]
        latents, noise, times, captions, weights = zip(*rows, strict=True)
        return self.noisy(latents, noise, times, captions, weights)

    def made(self) -> Iterator[Tensor]:
        """What was computed once for all steps, in order."""
        yield from (each.latents for pool in self.pools for each in pool.samples)

    def noisy(
        self,
        latents: Sequence[Tensor],
        noise: Sequence[Tensor],
        times: Sequence[int],
        captions: Sequence[str],
        weights: Sequence[float] = (),
    ) -> Noisy:
        """A batch of latents (C, h, w) with unit noise at timesteps, on the model's device."""
        device = self.pipeline.device
        indices = torch.tensor(times)
        sigma = self.schedule.sigmas[indices].float().to(device)
        clean, added = torch.stack(list(latents)).float().to(device), torch.stack(list(noise)).to(device)
        made = example(clean, added, sigma, self.prediction, self.recipe.gamma)
        if weights:
            made = made._replace(weight=made.weight * torch.tensor(weights, device=device))
        return Noisy(made, indices.to(device), tuple(captions))

    def probes(self, samples: Sequence[Sample], count: int) -> list[Noisy]:
        """Fixed batches of a size each: timesteps evenly from all, every probe with its own noise and first caption."""
        rows: dict[tuple[int, ...], list[tuple[Tensor, Tensor, int, str]]] = {}
        for index in range(count):
            sample = samples[index % len(samples)]
            noise = torch.randn(sample.shape, generator=generator("probe", self.recipe.seed, index))
            time = int((index + 0.5) / count * len(self.schedule))
            rows.setdefault(sample.shape, []).append((sample.latents[0], noise, time, sample.captions[0]))
        size = self.recipe.batch
        parts = [each[start : start + size] for each in rows.values() for start in range(0, len(each), size)]
        return [self.noisy(*zip(*part, strict=True)) for part in parts]

    def predict(self, batch: Noisy) -> Tensor:
        """The network's answer."""
        scaled = batch.example.input.contiguous(memory_format=torch.channels_last)
        with self.learns.adapted:
            return self.answer(scaled, batch.times, batch.captions)

    def answer(self, scaled: Tensor, times: Tensor, captions: Sequence[str]) -> Tensor:
        """What the network says to scaled latents (B, C, h, w) at timesteps (B,)."""
        saving = self.recipe.checkpointing and torch.is_grad_enabled()
        lean = forgetting(self.unet, partial(self._inside, scaled)) if saving else nullcontext()
        with _attention(scaled), lean:
            said = self.words(captions)
            return self.unet(scaled, times, said.words, self._extras(said, scaled))

    def loss(self, prediction: Tensor, batch: Noisy) -> Tensor:
        """Min-SNR weighted squared error."""
        return weighted_error(prediction, batch.example.target, batch.example.weight)

    @contextmanager
    def _inside(self, x: Tensor) -> Iterator[None]:
        """What surrounds the network while it answers."""
        with self.learns.adapted, _attention(x):
            yield

    def _drawn(self, sample: Sample, draw: Draw) -> tuple[Tensor, Tensor, int, str]:
        own = draw.generator("tuning")
        chance = torch.rand(3, generator=own).tolist()
        latents = sample.latents[int(chance[0] * len(sample.latents))]
        noise = torch.randn(sample.shape, generator=own)
        if self.recipe.noise_offset:
            noise = noise + self.recipe.noise_offset * torch.randn(sample.shape[0], 1, 1, generator=own)
        caption = "" if chance[1] < self.recipe.empty else sample.captions[int(chance[2] * len(sample.captions))]
        return latents, noise, int(draw.uniform() * len(self.schedule)), caption

    def _extras(self, said: Conditioning, x: Tensor) -> Extras:
        """SDXL's pooled words and sizes: nothing is cropped away."""
        if self.unet.config.addition_embed_type != "text_time":
            return Extras()
        height, width = (side * self.pipeline.multiple for side in x.shape[2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=x.device)
        return Extras(pooled=said.pooled, time_ids=sizes.expand(len(x), -1))


def _attention(x: Tensor) -> AbstractContextManager[Any]:
    """Plain attention where its gradient is several times faster than the flash kernel's."""
    small = torch.is_grad_enabled() and x.device.type == "cpu" and x[0, 0].numel() <= FEW_TOKENS
    return sdpa_kernel(SDPBackend.MATH) if small else nullcontext()
