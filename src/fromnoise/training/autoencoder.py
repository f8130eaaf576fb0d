"""Train the autoencoder: L1 on pixels and on their edges, and a light pull of the latents toward unit normal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.checkpoints import load_module, save_module
from fromnoise.checkpoints.folder import DIFFUSERS_WEIGHTS
from fromnoise.data import Dataset, load_dataset
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig, Gaussian
from fromnoise.runtime.device import channels_last
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.training.callbacks import Averages, LearningRate
from fromnoise.training.optimizers import muon
from fromnoise.training.order import Draw, draws
from fromnoise.training.run import Show, begin_run, fit, require_pictures, settled
from fromnoise.training.variety import vary

Coder = Callable[[Tensor], Tensor]
"""From pictures to latents, or back."""


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Settings of a run; `init` names a `vae` folder to go on from.

    `freeze_encoder` trains the decoder alone, so that a denoiser trained on the latents stays good. It stays good with
    `anchor`, too, the weight of the squared distance from `init`'s latents for pictures as they are in the dataset,
    while the encoder learns those which it doesn't know: a share `varied`, made from them (see `variety.vary`).
    """

    init: str | None = None
    freeze_encoder: bool = False
    anchor: float = 0.0
    varied: float = 0.0
    steps: int = 30_000
    batch: int = 8
    rate: float = 5e-4
    warmup: int = 200
    decay_at: int | None = None
    edges: float = 0.5
    kl: float = 1e-3
    average: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        """UsageError for fields that don't go together."""
        if self.anchor and not self.init:
            raise UsageError("`anchor` holds latents to those of `init`: name a model's vae folder there")


CONFIG = AutoencoderConfig(
    latent_channels=8,
    block_out_channels=(24, 48, 96, 128),
    layers_per_block=1,
    norm_num_groups=8,
    sample_size=128,
    scaling_factor=1.0,
)

OUTSIDE = ("encoder.conv_in", "quant_conv", "post_quant_conv", "decoder.conv_out")
"""What AdamW trains, because it touches pixels or latents."""


@dataclass
class Pictures:
    """A batch: pictures (B, 3, H, W) in [-1, 1], unit noise of their latents' shape, and which are varied (B,)."""

    pixels: Tensor
    noise: Tensor
    varied: Tensor


class AutoencoderTask:
    """Rebuild the dataset's training pictures."""

    def __init__(self, model: Autoencoder, dataset: Dataset, recipe: AutoencoderRecipe) -> None:
        self.model, self.recipe = model, recipe
        self.before = copy.deepcopy(model).requires_grad_(False) if recipe.anchor else None
        self.rows = dataset.indices(split="train")
        self.pixels = dataset.all_pixels

    def batch(self, step: int) -> Pictures:
        """Half of the pictures mirrored, which a reconstruction does not mind whatever they show."""
        chosen = draws(self.recipe.seed, step, self.recipe.batch, len(self.rows))
        pictures = [torch.from_numpy(self.pixels[self.rows[draw.sample]].copy()) for draw in chosen]
        flipped = [each.flip(1) if draw.uniform() < 0.5 else each for each, draw in zip(pictures, chosen, strict=True)]
        factor = self.model.config.factor
        height, width = pictures[0].shape[:2]
        shape = (self.model.config.latent_channels, height // factor, width // factor)
        noise = torch.stack([torch.randn(shape, generator=draw.generator("latent")) for draw in chosen])
        pixels = to_model_range(torch.stack(flipped))
        varied = torch.tensor([self._varies(draw) for draw in chosen])
        for row in varied.nonzero()[:, 0].tolist():
            pixels[row] = vary(pixels[row], chosen[row].generator("variety")).picture
        return Pictures(pixels, noise, varied)

    def _varies(self, draw: Draw) -> bool:
        return torch.rand((), generator=draw.generator("varies")).item() < self.recipe.varied

    def predict(self, batch: Pictures) -> tuple[Tensor, Gaussian]:
        """The reconstruction and the latents' distribution."""
        return self.model(batch.pixels, batch.noise)

    def loss(self, prediction: tuple[Tensor, Gaussian], batch: Pictures) -> Tensor:
        """L1 + edges * L1 of Sobel gradients + kl * (KL per latent) + anchor * (squared distance of latents)."""
        rebuilt, latents = prediction[0].float(), prediction[1]
        kl = latents.kl().mean() / latents.mean[0].numel()
        moved = self._moved(latents.mean.float(), batch)
        seen = pixel_loss(rebuilt, batch.pixels, self.recipe.edges)
        return seen + self.recipe.kl * kl + self.recipe.anchor * moved

    def _moved(self, latents: Tensor, batch: Pictures) -> Tensor:
        """How far the latents of pictures as they are lie from what they were, squared and averaged."""
        plain = ~batch.varied
        if self.before is None or not plain.any():
            return latents.new_zeros(())
        with torch.no_grad():
            wanted = self.before.distribution(batch.pixels[plain]).mean.float()
        return ((latents[plain] - wanted) ** 2).sum() / latents.numel()


def train(
    dataset: Path, run: Path, recipe_file: Path | None = None, *, resume: bool = False, show: Show | None = None
) -> None:
    """Train in the folder `run`; at the end its folder `vae` holds the averaged weights, latents normalised."""
    recipe = settled(AutoencoderRecipe(), recipe_file, run, resume=resume)
    pictures = load_dataset(dataset)
    require_pictures(len(pictures.indices(split="train")), batch=recipe.batch)
    begin_run(run, recipe, pictures, resume=resume)
    torch.manual_seed(recipe.seed)
    model = new_autoencoder(recipe)
    averages = Averages(model, (recipe.average,))
    fit(
        run,
        AutoencoderTask(model, pictures, recipe),
        LearningRate(recipe.rate, recipe.warmup, recipe.decay_at, recipe.steps),
        averages,
        steps=recipe.steps,
        batch=recipe.batch,
        show=show,
        resume=resume,
        optimizer=muon(model, OUTSIDE),
    )
    model.load_state_dict(averages.weights(model, recipe.average))
    finish(model.eval(), pictures, run, fold=not (recipe.freeze_encoder or recipe.anchor))


def new_autoencoder(recipe: AutoencoderRecipe) -> Autoencoder:
    """A fresh autoencoder, or the one that `init` names."""
    model = Autoencoder(CONFIG)
    if recipe.init:
        load_module(model, Path(recipe.init) / DIFFUSERS_WEIGHTS)
    model.encoder.requires_grad_(not recipe.freeze_encoder)
    model.quant_conv.requires_grad_(not recipe.freeze_encoder)
    return channels_last(model)


def finish(model: Autoencoder, dataset: Dataset, run: Path, *, fold: bool) -> None:
    """Normalise the latents over a twentieth of the training pictures, say how good it is, and write `vae`."""
    if fold:
        fold_statistics(model, to_model_range(torch.from_numpy(dataset.pixels(dataset.indices(split="train")[::20]))))
    save_module(run / "vae", model, "AutoencoderKL")
    held_out = to_model_range(torch.from_numpy(dataset.pixels(dataset.indices(split="held_out"))))
    if len(held_out):
        quality = psnr(model.decode, model.encode, held_out)
        note(f"{quality:.2f} dB on {len(held_out)} held-out pictures; written to {run / 'vae'}")


def to_model_range(pixels: Tensor) -> Tensor:
    """Bytes (B, H, W, 3) as floats (B, 3, H, W) in [-1, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def pixel_loss(rebuilt: Tensor, pixels: Tensor, edges: float) -> Tensor:
    """L1 of pictures (B, 3, H, W) + `edges` * L1 of their Sobel gradients."""
    return (rebuilt - pixels).abs().mean() + edges * (sobel(rebuilt) - sobel(pixels)).abs().mean()


def sobel(pictures: Tensor) -> Tensor:
    """Horizontal and vertical gradients of each channel, (B, 3, H, W) to (B, 6, H - 2, W - 2)."""
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    kernel = torch.stack([across, across.T]).to(pictures)[:, None].repeat(3, 1, 1, 1)
    return F.conv2d(pictures, kernel, groups=3)


@torch.no_grad()
def fold_statistics(model: Autoencoder, pictures: Tensor) -> None:
    """Make each latent channel zero mean and unit deviation over `pictures`, inside the 1x1 convolutions.

    Afterwards the decoder gives what it gave before: what `quant_conv` now takes away, `post_quant_conv` puts back.
    """
    latents = torch.cat([model.distribution(part).mean for part in pictures.split(32)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = model.config.latent_channels
    quant, post = model.quant_conv, model.post_quant_conv
    assert isinstance(quant, nn.Conv2d) and isinstance(post, nn.Conv2d)
    assert quant.bias is not None and post.bias is not None
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= deviation[None, :, None, None]
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.bias[channels:] -= 2 * deviation.log()


@torch.no_grad()
def psnr(decode: Coder, encode: Coder, pictures: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures encoded and decoded, in dB over [0, 1], mean per picture."""
    errors = []
    for part in pictures.split(32):
        rebuilt = decode(encode(part)).clamp(-1, 1)
        errors.append((((rebuilt - part) / 2) ** 2).flatten(1).mean(1))
    return float((-10 * torch.cat(errors).log10()).mean())
