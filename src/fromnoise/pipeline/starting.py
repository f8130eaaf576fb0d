"""What a run begins with: noise, a picture made noisy, or either with a second seed's noise blended in."""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fromnoise.diffusion.blending import Blended
from fromnoise.diffusion.guidance.guided import GuidedDenoiser
from fromnoise.diffusion.samplers import fits
from fromnoise.images.convert import to_tensor
from fromnoise.pipeline.inpainting import RULES, Inpainting, open_picture
from fromnoise.pipeline.scheduler import likeness
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.philox import ComfyNoise, PhiloxNoise
from fromnoise.runtime.seeds import PictureNoise, fresh_seed

if TYPE_CHECKING:
    from fromnoise.diffusion.samplers import Step
    from fromnoise.pipeline.drawing import Pipeline
    from fromnoise.pipeline.passes import Second

Noise = PictureNoise | PhiloxNoise

NOISES: Mapping[str, type[PictureNoise] | type[PhiloxNoise]] = MappingProxyType(
    {"cpu": PictureNoise, "philox": PhiloxNoise, "comfyui": ComfyNoise}
)
"""Where each tool's noise comes from."""

PARALLEL = 0.9995
"""From this mean cosine on two noises are blended straight, since the angle between them is lost in rounding."""


COUNT_THEIR_OWN = ("dpm-adaptive", "restart")
"""Samplers that take another number of steps than are asked for."""


class Start(NamedTuple):
    """The first noisy latents x, the clean ones of the picture in them if there is one, and their unit noise.

    Each is (B, C, h, w).
    """

    x: Tensor
    clean: Tensor | None
    noise: Tensor


def require_going_on(request: Request, start: Step, x: Tensor, steps: int) -> None:
    """UsageError for a Step of a drawing of another size, number of pictures or sampler, or of more steps."""
    if start.x.shape != x.shape:
        shapes = f"latents of {tuple(start.x.shape)}, and the request has {tuple(x.shape)}"
        raise UsageError(f"the step to go on from has {shapes}; give the request that it was made by")
    if start.index < 0:
        raise UsageError(f"the step to go on from is number {start.index}; there is no such step")
    if start.index > steps and request.sampler not in COUNT_THEIR_OWN:
        raise UsageError(f"the step to go on from is number {start.index}, and the request has {steps}; ask for more")
    if not fits(str(request.sampler), start, steps):
        raise UsageError(f"the step to go on from isn't {request.sampler}'s; give the request that it was made by")


def require_controls(request: Request, size: tuple[int, int], loaded: Container[str]) -> None:
    """UsageError for a ControlNet that isn't loaded, or whose picture isn't of the size to draw."""
    upscaled = request.init is not None and request.hires is not None  # only then its pictures are fitted later
    for control in request.controls:
        if control.model not in loaded:
            raise UsageError(f"the ControlNet {control.model} isn't loaded; name it when the model is loaded")
        if not upscaled and (theirs := open_picture(control.picture).size) != size:
            raise UsageError(f"the picture that {control.model} follows is {theirs}, not {size}; resize it first")


def singles(request: Request) -> list[Request]:
    """A resolved request cut into one for each picture: seed + k, or variation_seed + k where noises are blended."""
    counted = "variation_seed" if request.variation else "seed"
    first = getattr(request, counted)
    assert first is not None
    return [request.with_(**{counted: first + index}, count=1) for index in range(request.count)]


def with_variation_seed(request: Request) -> Request:
    """The request with a fresh variation seed where it asks for a variation and doesn't say which."""
    if not request.variation or request.variation_seed is not None:
        return request
    return request.with_(variation_seed=fresh_seed())


def source(request: Request, shape: tuple[int, ...]) -> Noise:
    """The streams of unit noise of a request's pictures."""
    return NOISES[likeness(request).noise]([int(each.seed or 0) for each in singles(request)], shape)


def begin(pipe: Pipeline, request: Request, sigmas: Tensor, noise: Noise) -> Start:
    """The start of a run from noise or from the request's picture; strength 0 is the autoencoder alone.

    An inpainting network at strength 1 starts from noise alone, and so does a drawing inside a mask, as in diffusers.
    """
    level, tool = float(sigmas[0]), likeness(request)
    alone = request.strength == 1 and (request.mask is not None or pipe.inpaints) and RULES[request.like].noise_alone
    if request.init is None or (alone and pipe.inpaints):
        clean = None
    else:
        clean = _encoded(pipe, request, noise, nothing_drawn=len(sigmas) == 1)
    if clean is not None and len(sigmas) == 1:
        return Start(clean, clean, torch.zeros_like(clean))
    unit = first_noise(request, noise).to(pipe.device)
    if clean is None or alone:
        start = Start(unit * pipe.scheduler.first_scale(request, level), clean, unit)
    else:
        highest = float(pipe.scheduler.schedule.sigmas[-1])
        start = Start(clean + tool.picture_scale(level, highest) * unit, clean, unit)
    if request.mask is not None and not pipe.inpaints and tool.noise == "cpu":
        noise()  # diffusers samples the masked picture's latents too, whether the network sees them or not
    return start


def begin_again(pipe: Pipeline, request: Request, second: Second, noise: Noise) -> Start:
    """The start of a second pass: its latents, noisy as at its first level."""
    clean = second.latents.to(pipe.device)
    if len(second.sigmas) == 1:
        note("strength 0: this is the enlarged picture through the autoencoder, with nothing drawn")
        return Start(clean, clean, torch.zeros_like(clean))
    scale = likeness(request).picture_scale(float(second.sigmas[0]), float(pipe.scheduler.schedule.sigmas[-1]))
    unit = first_noise(request, noise).to(pipe.device)
    return Start(clean + scale * unit, clean, unit)


def first_noise(request: Request, noise: Noise) -> Tensor:
    """The unit noise that a run begins with, (B, C, h, w): the next of `noise`, perhaps turned towards another's.

    Later noise is never blended, as in the AUTOMATIC1111 web UI (`modules/rng.py`), whose "Variation strength" this is.
    """
    unit = noise()
    if not request.variation:
        return unit
    others = [int(each.variation_seed or 0) for each in singles(request)]
    other = NOISES[likeness(request).noise](others, tuple(unit.shape[1:]))()
    return slerp(unit, other, request.variation, rows=request.like == "a1111")


def slerp(one: Tensor, other: Tensor, share: float, *, rows: bool = False) -> Tensor:
    """From one noise (B, C, h, w) to another along the great circle, `share` of the way (Shoemake 1985, section 3.3).

    Unlike a straight blend it keeps the length, and so the variance. Each picture is one vector; with `rows` each
    column of a channel is, which is the web UI's arithmetic.
    """
    pairs = zip(one, other, strict=True)
    return torch.stack([_turned(a, b, share, (1,) if rows else (0, 1, 2)) for a, b in pairs])


def _turned(one: Tensor, other: Tensor, share: float, dims: tuple[int, ...]) -> Tensor:
    lengths = (torch.linalg.vector_norm(each, dim=dims, keepdim=True) for each in (one, other))
    first, second = (each / length for each, length in zip((one, other), lengths, strict=True))
    cosine = (first * second).sum(dims, keepdim=True)
    if float(cosine.mean()) > PARALLEL:
        return one.lerp(other, share)
    angle = torch.acos(cosine)
    return (torch.sin((1 - share) * angle) * one + torch.sin(share * angle) * other) / torch.sin(angle)


def _encoded(pipe: Pipeline, request: Request, noise: Noise, *, nothing_drawn: bool) -> Tensor:
    """The picture's clean latents, (B, C, h, w): in diffusers' way a sample, else the likeliest ones."""
    pixels = picture_tensor(request).to(pipe.device, pipe.dtype)
    if nothing_drawn:
        note("strength times steps is below 1: this is the picture through the autoencoder, with nothing drawn")
    # Only diffusers samples the latents; the other tools' first draw is the noise that is added.
    sampled = noise().to(pixels) if likeness(request).noise == "cpu" and not nothing_drawn else None
    pipe.take_autoencoder()
    return pipe.autoencoder.encode(pixels, sampled).float().expand(request.count, -1, -1, -1)


def picture_tensor(request: Request) -> Tensor:
    """The picture to start from as (1, 3, H, W) in [-1, 1], at the size to draw."""
    assert request.init is not None
    return to_tensor(open_picture(request.init) if request.mask is None else Inpainting.of(request).shown())


def kept(pipe: Pipeline, denoise: GuidedDenoiser, request: Request, start: Start, first: float) -> GuidedDenoiser:
    """The denoiser that keeps what a request's mask doesn't cover; `first` is the run's first level."""
    rule = RULES[request.like]
    if request.mask is None or start.clean is None or (pipe.inpaints and not rule.all_networks):
        return denoise
    drawn = Inpainting.of(request).drawn((start.clean.shape[-2], start.clean.shape[-1])).to(start.clean)
    return Blended(denoise, start.clean, start.noise, drawn, rule.seen(str(request.sampler)), first)
