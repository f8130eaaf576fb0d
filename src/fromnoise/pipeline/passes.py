"""Drawings of more than one run: the second pass at a larger size, and first steps that were told something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fromnoise.diffusion.samplers import Step, step_count
from fromnoise.images.convert import to_tensor
from fromnoise.images.opening import to_png
from fromnoise.pipeline.inpainting import open_picture
from fromnoise.request import Control, Hires, Request
from fromnoise.text import later, parse, unparse

if TYPE_CHECKING:
    from fromnoise.pipeline.drawing import Pipeline

Draw = Callable[..., Iterator[Step]]
"""`draw(request, start)` gives the steps of one run; `draw(request, start, second)` those of a second pass."""

MODES: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "latent": ("bilinear", False),
        "latent-antialiased": ("bilinear", True),
        "latent-bicubic": ("bicubic", False),
        "latent-bicubic-antialiased": ("bicubic", True),
        "latent-nearest": ("nearest", False),
        "latent-nearest-exact": ("nearest-exact", False),
    }
)
"""How latents are enlarged: torch's mode, and whether it is antialiased (the AUTOMATIC1111 web UI's, `shared.py`)."""

FILTERS: Mapping[str, Image.Resampling] = MappingProxyType(
    {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
)
"""How pixels are."""


@dataclass(frozen=True)
class Second:
    """What a second pass begins with: clean latents (B, C, h, w), noise levels, and the side of a tile in latents."""

    latents: Tensor
    sigmas: Tensor
    tile: int | None


def in_two_passes(pipe: Pipeline, request: Request, start: Step | None, first: Draw, second: Draw) -> Iterator[Step]:
    """The steps of a request with `hires`, counted on through both passes; `start` may be of either."""
    assert request.hires is not None
    done = first_steps(pipe, request) if request.init is None else 0
    begun = start is not None and (start.second_pass or request.init is not None)
    small = start
    if request.init is None and not begun:
        for small in first(request.with_(hires=None), start):
            yield small
    latents = start.x if start is not None and begun else enlarged(pipe, request, small)
    tile = None if request.hires.tile is None else max(request.hires.tile // pipe.multiple, 1)
    begins = Second(latents, pipe.scheduler.second_sigmas(request), tile)
    go_on = replace(start, index=start.index - done) if start is not None and begun else None
    for step in second(_second(pipe, request), go_on, begins):
        yield replace(step, index=step.index + done, second_pass=True)


def first_steps(pipe: Pipeline, request: Request) -> int:
    """How many Steps a resolved request's first pass has; DPM adaptive may take more or fewer."""
    return step_count(str(request.sampler), pipe.sigmas(request.with_(hires=None)))


def told_otherwise(request: Request, start: Step | None, draw: Draw) -> Iterator[Step]:
    """The steps of a `begun` request: the first ones by what they were told, the others going on from the last.

    Bit-equal to a draft that is gone on with in another process.
    """
    begun = request.begun
    assert begun is not None
    step, done = start, 0 if start is None else start.index
    if done < begun.steps:
        for step in islice(draw(first_words(request), start), begun.steps - done):
            yield step
    yield from draw(request.with_(begun=None), step)


def first_words(request: Request) -> Request:
    """What the first steps of a begun request were told."""
    begun = request.begun
    if begun is None:
        return request
    guidance = request.guidance if begun.guidance is None else begun.guidance
    return request.with_(begun=None, prompt=begun.prompt, negative=begun.negative, guidance=guidance)


def larger(size: tuple[int, int], hires: Hires, multiple: int) -> tuple[int, int]:
    """The (width, height) of the second pass, cut to what the model can draw."""
    width, height = (max(int(side * hires.scale + 1e-6) // multiple, 1) * multiple for side in size)
    return width, height


def enlarged(pipe: Pipeline, request: Request, step: Step | None) -> Tensor:
    """The latents (B, C, h, w) of what the first pass drew, or of the picture to upscale, at the larger size."""
    assert request.hires is not None and request.size is not None
    width, height = size = larger(request.size, request.hires, pipe.multiple)
    if request.hires.in_latents:
        mode, antialias = MODES[request.hires.upscaler]
        small = _picture(pipe, request) if step is None else step.x
        return F.interpolate(small, (height // pipe.multiple, width // pipe.multiple), mode=mode, antialias=antialias)
    images = pipe.decode(step.x) if step is not None else [open_picture(request.init or b"")]
    resized = [_resized(each, size, FILTERS[request.hires.upscaler]) for each in images]
    latents = torch.cat([pipe.encode(to_tensor(each)) for each in resized])
    return latents.expand(request.count, -1, -1, -1)


def _picture(pipe: Pipeline, request: Request) -> Tensor:
    return pipe.encode(to_tensor(open_picture(request.init or b""))).expand(request.count, -1, -1, -1)


def _second(pipe: Pipeline, request: Request) -> Request:
    """What the second pass draws. Prompt edits go on counting, as in the web UI: those of the first pass are past."""
    assert request.hires is not None and request.size is not None
    size = larger(request.size, request.hires, pipe.multiple)
    done = 0 if request.init is not None else pipe.run_steps(request.with_(hires=None))
    words = {} if request.weighting == "none" or done == 0 else _later_words(request, done)
    return request.with_(
        hires=None, begun=None, init=None, size=size, controls=_fitted(request.controls, size), **words
    )


def _later_words(request: Request, done: int) -> dict[str, str]:
    prompts = {"prompt": parse(request.prompt), "negative": parse(request.negative, compose=False)}
    return {name: unparse(moved) for name, each in prompts.items() if (moved := later(each, done)) != each}


def _fitted(controls: Sequence[Control], size: tuple[int, int]) -> tuple[Control, ...]:
    """The pictures that are followed, at the larger size."""
    return tuple(
        replace(each, picture=to_png(_resized(open_picture(each.picture), size, Image.Resampling.LANCZOS)))
        for each in controls
    )


def _resized(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.convert("RGB").resize(size, resampling)
