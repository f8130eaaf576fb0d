"""What a drawing will take: seconds and memory, from counted work and this machine's measured speeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fromnoise.diffusion.samplers_table import SAMPLER_FACTS
from fromnoise.models.clip_text import ClipText
from fromnoise.models.extras import Reuse
from fromnoise.models.tiling import OVERLAP, TILE
from fromnoise.models.tiny_autoencoder import TinyAutoencoderConfig
from fromnoise.models.work import COPIES, Work, control_work, decoder_work, encoder_work, text_work, unet_work
from fromnoise.pipeline.drawing import TILED_FROM, Pipeline
from fromnoise.pipeline.guiding import plan
from fromnoise.pipeline.measuring import JOINED, JOINING, STEP, Form, machine
from fromnoise.pipeline.turns import largest
from fromnoise.request import Request
from fromnoise.runtime.machine import READY, Machine, peak_bytes, resident_bytes

INTERPRETER = 320e6
"""Bytes that Python, torch and fromnoise hold before a model is loaded."""

BETWEEN = 1.1
"""What joining maps and embedding the time add to a network's blocks (docs/speed.md)."""

FIRST = 2.4
"""What getting ready takes longer in a new process than where others were made ready before (docs/speed.md)."""

UNET = "U-Net"

ADAPTIVE_CALLS = 34
"""Calls of a sampler that decides by itself, on the embedded model (docs/samplers.md)."""


@dataclass(frozen=True)
class Part:
    """`calls` equal calls of a network; each takes `seconds` and holds `memory` bytes beside the weights."""

    name: str
    work: Work
    calls: int
    seconds: float
    memory: float


@dataclass(frozen=True)
class Forecast:
    """What drawing is expected to take.

    `ready` seconds before the first drawing, then its parts; and the process's bytes before it: now, and at the most
    so far.
    """

    ready: float
    parts: tuple[Part, ...]
    resident: float
    loaded: float
    learned: float = 1.0

    @property
    def flops(self) -> float:
        """All operations."""
        return sum(each.calls * each.work.flops for each in self.parts)

    @property
    def seconds(self) -> float:
        """Seconds of this machine for itself, loading not included."""
        return self.learned * (self.ready + sum(each.calls * each.seconds for each in self.parts))

    @property
    def peak(self) -> float:
        """Bytes resident at the most, from loading the model to the last picture."""
        return max(self.loaded, self.resident + max(each.memory for each in self.parts))


def works(pipe: Pipeline, request: Request) -> list[tuple[str, Work, int]]:
    """Each kind of call that a resolved request makes: what it is, its work, and how often."""
    parts = list(pipe.parts(request))
    found: Counter[tuple[str, Work]] = Counter()
    for text in _texts(pipe):  # what a prompt says is kept for the next picture
        found["text encoder", text_work(text.config, 2)] += len({(part.prompt, part.negative) for part in parts})
    for count, batches in Counter(part.count for part in parts).items():
        for name, work, calls in _drawing(pipe, request.with_(count=count)):
            found[name, work] += calls * batches
    return [(name, work, calls) for (name, work), calls in found.items()]


def forecast(pipe: Pipeline, request: Request) -> Forecast:
    """What drawing a resolved request takes on the CPU, measuring the machine first where nobody has yet."""
    parts = [_bytes(each) for each in (pipe.unet, pipe.autoencoder, *_texts(pipe))]
    weights = largest(parts, pipe.turns) + sum(map(_bytes, pipe.controls.values()))
    resident, loaded = max(resident_bytes(), INTERPRETER + weights), peak_bytes()  # before measuring takes its own
    measured = machine(Form.of(pipe.unet, pipe.dtype))
    value, joined = pipe.dtype.itemsize, pipe.wardrobe(request).missing
    parts = tuple(
        Part(name, work, calls, seconds(measured, name, work), COPIES * value * work.values)
        for name, work, calls in works(pipe, request)
    )
    ready = joined / measured.rate(JOINING, 1, JOINED)
    if not pipe.engines.ran:
        ready += getting_ready(measured, parts)
    return Forecast(ready, parts, resident + value * joined, loaded, measured.learned(kind_of_run(pipe, request)))


def seconds(measured: Machine, network: str, work: Work) -> float:
    """What a call takes, piece by piece, and what lies between; a U-Net's with the sampler's step around it."""
    begun = sum(each.blocks * measured.starts[each.kind] for each in work.pieces)
    blocks = begun + sum(each.flops / measured.rate(each.kind, each.rows, each.width) for each in work.pieces)
    return BETWEEN * blocks + (measured.starts[STEP] if network == UNET else 0.0)


def getting_ready(measured: Machine, parts: Sequence[Part]) -> float:
    """Seconds that first calls take beyond later ones: a network's weights are laid out, and their kernels made."""
    rising = sorted(parts, key=lambda each: each.work.flops)
    whole = {each.name: each.work for each in rising}
    shapes = {(each.name, each.work.pieces[0].rows): each.work for each in rising}
    laid_out = (
        each.weights / measured.rate(READY, each.rows, each.width) for work in whole.values() for each in work.pieces
    )
    begun = (each.blocks * measured.anew[each.kind] for work in shapes.values() for each in set(work.pieces))
    return FIRST * (sum(laid_out) + sum(begun))


def kind_of_run(pipe: Pipeline, request: Request) -> str:
    """What runs are alike in, so that one tells about the next: model, size and engine."""
    return f"{pipe.hash or pipe.name} {request.size} {pipe.engines.used}"


def learn(pipe: Pipeline, request: Request, predicted: Forecast, taken: float) -> None:
    """Correct later predictions of such runs by what one really took, in seconds of this process's own work."""
    alone = predicted.seconds / predicted.learned
    machine(Form.of(pipe.unet, pipe.dtype)).learn(kind_of_run(pipe, request), taken / alone)


def _drawing(pipe: Pipeline, request: Request) -> Iterator[tuple[str, Work, int]]:
    """Every kind of call of one batch, and how often."""
    assert request.size is not None
    side = pipe.multiple
    size = request.size[1] // side, request.size[0] // side
    if request.init is not None:
        yield "encoder", encoder_work(pipe.autoencoder.config, 1, size), 1
    if request.hires is None or request.init is None:
        yield from _run(pipe, request, pipe.sigmas(request), size)
    if request.hires is not None:
        size = round(size[0] * request.hires.scale), round(size[1] * request.hires.scale)
        yield from _run(pipe, request, pipe.scheduler.second_sigmas(request), size)
    yield from _decoding(pipe, size, request.count)


def _run(pipe: Pipeline, request: Request, sigmas: Tensor, size: tuple[int, int]) -> Iterator[tuple[str, Work, int]]:
    """The network's calls of one run over noise levels, on latents of (h, w)."""
    words = pipe.prompts.encoders[0].clip_text.config.max_position_embeddings
    merge = request.merge or 0.0
    for (rows, outer), calls in network_calls(pipe, request, sigmas).items():
        yield UNET, unet_work(pipe.unet.config, rows, size, words, merge=merge, outer=outer), calls
        for control in request.controls:
            yield "ControlNet", control_work(pipe.controls[control.model].config, rows, size, words), calls


def network_calls(pipe: Pipeline, request: Request, sigmas: Tensor) -> Counter[tuple[int, int | None]]:
    """How often a run calls the U-Net with so many rows and so many outer layers, None being all layers."""
    reuse = None if request.reuse is None else Reuse(*request.reuse)
    found: Counter[tuple[int, int | None]] = Counter()
    for rows in _rows(pipe, request, sigmas):
        kept = None if reuse is None else reuse.take(rows)
        if reuse is not None and kept is None:
            reuse.keep(torch.empty(rows, 0))
        found[rows, None if reuse is None or kept is None else reuse.layers] += 1
    return found


def _rows(pipe: Pipeline, request: Request, sigmas: Tensor) -> Iterator[int]:
    """How many rows each call of the network has: pictures, once for each prediction that guidance asks for."""
    guided = plan(request, sigmas, (1.0,), embedded=pipe.unet.config.time_cond_proj_dim is not None)
    calls = SAMPLER_FACTS[str(request.sampler)].calls
    if calls is None:
        yield from [len(guided.roles) * request.count] * ADAPTIVE_CALLS
        return
    for sigma in sigmas[:-1]:
        inside = guided.interval is None or bool(guided.interval.holds(sigma))
        for _ in range(calls):
            yield len(guided.roles if inside else guided.roles_alone) * request.count


def _decoding(pipe: Pipeline, size: tuple[int, int], count: int) -> Iterator[tuple[str, Work, int]]:
    """Decoding pictures from latents of (h, w): small ones together, large ones in tiles, each of them twice."""
    config, pixels = pipe.autoencoder.config, size[0] * size[1] * pipe.multiple**2
    if pixels < TILED_FROM or isinstance(config, TinyAutoencoderConfig):
        several = pipe.engines.decodes(pixels)
        for together, calls in ((several, count // several), (count % several, 1)):
            if together and calls:
                yield "autoencoder", decoder_work(config, together, size), calls
        return
    rows, columns = (math.ceil((side - OVERLAP) / (TILE - OVERLAP)) for side in size)
    yield "autoencoder", decoder_work(config, 1, (TILE, TILE)), 2 * rows * columns * count


def _texts(pipe: Pipeline) -> Iterator[ClipText]:
    return (each.clip_text for each in pipe.prompts.encoders)


def _bytes(module: nn.Module) -> float:
    return sum(each.numel() * each.element_size() for each in module.parameters())
