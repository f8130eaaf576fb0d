"""Draw many prompts at once, each with its own seed: the pipeline's own line, with a batch of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from fromnoise.diffusion.samplers import SAMPLERS, TWO_DENOISERS
from fromnoise.images.convert import to_tensor
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.tiny_autoencoder import TinyAutoencoder
from fromnoise.pipeline import Pipeline
from fromnoise.pipeline.guiding import plan
from fromnoise.pipeline.network import Network, Said, reusing
from fromnoise.request import Request
from fromnoise.runtime.seeds import PictureNoise

BATCH = 16
"""Pictures drawn at once: a CPU does little better with more."""

Show = Callable[[int, int], None]
"""Told how many of how many are done."""


def draw(
    pipe: Pipeline, prompts: Sequence[str], settings: Request, *, batch: int = BATCH, show: Show | None = None
) -> list[Image.Image]:
    """A picture of each prompt, drawn as `settings` say; picture k has seed + k, as if each were asked for alone."""
    settings = pipe.resolve(settings)
    drawn: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        latents = _latents(pipe, part, settings.with_(seed=(settings.seed or 0) + start))
        drawn += pipe.decode(latents, fast=settings.fast)
        if show:
            show(len(drawn), len(prompts))
    return drawn


@torch.inference_mode()
def _latents(pipe: Pipeline, prompts: Sequence[str], settings: Request) -> Tensor:
    """The last latents of one batch."""
    count, (width, height) = len(prompts), settings.size or pipe.size
    shape = (pipe.autoencoder.config.latent_channels, height // pipe.multiple, width // pipe.multiple)
    noise = PictureNoise([(settings.seed or 0) + index for index in range(count)], shape)
    sigmas = pipe.sigmas(settings)
    x = noise().to(pipe.device) * pipe.scheduler.first_scale(settings, float(sigmas[0]))
    words = pipe.prompts.encode([*prompts, settings.negative]).to(pipe.device, pipe.dtype)
    said = Said((words[:count],), words[count:].repeat(count))
    network = Network(
        pipe.unet,
        pipe.scheduler.training(settings),
        pipe.scheduler.prediction,
        sigmas,
        lambda step: said,
        count=1,  # of every prompt; the words are a batch already
        adapted=pipe.wardrobe(settings),
        merge=settings.merge or 0.0,
        reuse=reusing(settings, (), pipe.device),
    )
    guided = plan(settings, sigmas, (1.0,), embedded=False).start(network, pipe.scheduler.prediction)
    denoise = guided.both if settings.sampler in TWO_DENOISERS else guided
    for step in SAMPLERS[settings.sampler or ""](denoise, x, sigmas, noise=noise):
        x = step.x
    return x


@torch.inference_mode()
def rebuilt(autoencoder: Autoencoder | TinyAutoencoder, pictures: Sequence[Image.Image]) -> Iterator[Tensor]:
    """Each picture through the autoencoder and back, (1, 3, H, W) in [-1, 1]: the best that a model could draw."""
    weights = next(autoencoder.parameters())
    for picture in pictures:
        pixels = to_tensor(picture).to(weights)
        yield autoencoder.decode(autoencoder.encode(pixels)).float().clamp(-1, 1).cpu()
