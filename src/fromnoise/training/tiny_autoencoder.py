"""Train a tiny autoencoder for the latents of another one, so that drawings in a few steps are soon decoded too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.checkpoints import load_module, save_module
from fromnoise.checkpoints.folder import DIFFUSERS_WEIGHTS
from fromnoise.data import Dataset, load_dataset
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from fromnoise.runtime.device import channels_last
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import EMBEDDED_MODEL, TINY
from fromnoise.training.autoencoder import pixel_loss, psnr, to_model_range
from fromnoise.training.callbacks import Averages, LearningRate
from fromnoise.training.denoiser import latents_of, read_autoencoder
from fromnoise.training.optimizers import muon
from fromnoise.training.order import Draw, draws
from fromnoise.training.run import Show, begin_run, fit, require_pictures, settled
from fromnoise.training.variety import vary


@dataclass(frozen=True)
class TinyAutoencoderRecipe:
    """Settings of a run. `autoencoder` is the model (or run) folder whose latents are learnt.

    `init` names a tiny autoencoder's folder to go on from; a share `varied` of the pictures is altered (see
    `variety.vary`). At a `rate` of 2e-3 Muon leaves whole blocks without an answer above zero within 1,000 steps,
    and nothing wakes those again.
    """

    autoencoder: str = str(EMBEDDED_MODEL)
    init: str | None = None
    varied: float = 0.2
    steps: int = 7_200
    batch: int = 4
    rate: float = 8e-4
    warmup: int = 100
    decay_at: int | None = 3_000
    edges: float = 0.5
    average: int = 300
    seed: int = 0


CONFIG = TinyAutoencoderConfig(
    latent_channels=8,
    encoder_block_out_channels=(32, 32, 32, 32),
    decoder_block_out_channels=(128, 64, 32, 16),
    num_encoder_blocks=(0, 1, 1, 1),
    num_decoder_blocks=(2, 2, 1, 1),
)


@dataclass
class Encoded:
    """A batch: pictures (B, 3, H, W) in [-1, 1] and their latents (B, C, h, w) by the large autoencoder."""

    pixels: Tensor
    latents: Tensor


class TinyAutoencoderTask:
    """Rebuild the training pictures from the large autoencoder's latents, and find these in the pictures."""

    def __init__(
        self,
        model: TinyAutoencoder,
        teacher: Autoencoder,
        latents: Tensor,
        dataset: Dataset,
        recipe: TinyAutoencoderRecipe,
    ) -> None:
        self.model, self.teacher, self.recipe = model, teacher, recipe
        self.latents = latents  # (N, 2, C, h, w): as drawn, and mirrored
        self.rows = dataset.indices(split="train")
        self.pixels = dataset.all_pixels

    def batch(self, step: int) -> Encoded:
        """Half of the pictures mirrored."""
        chosen = draws(self.recipe.seed, step, self.recipe.batch, len(self.rows))
        pixels, latents = zip(*map(self.sample, chosen), strict=True)
        return Encoded(*(torch.stack(each).contiguous(memory_format=torch.channels_last) for each in (pixels, latents)))

    def sample(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """One draw's picture (3, H, W), mirrored or varied perhaps, and its latents (C, h, w)."""
        generator = draw.generator("variety")
        chance = torch.rand(2, generator=generator).tolist()
        mirrored, varies = chance[0] < 0.5, chance[1] < self.recipe.varied
        picture = to_model_range(torch.from_numpy(self.pixels[self.rows[draw.sample]][None].copy()))[0]
        picture = picture.flip(2) if mirrored else picture
        if not varies:
            return picture, self.latents[draw.sample, int(mirrored)].float()
        picture = vary(picture, generator).picture
        return picture, self.encoded(picture)

    @torch.no_grad()
    def encoded(self, picture: Tensor) -> Tensor:
        """The large autoencoder's latents (C, h, w) of a picture (3, H, W)."""
        return self.teacher.encode(picture[None].contiguous(memory_format=torch.channels_last))[0]

    def predict(self, batch: Encoded) -> tuple[Tensor, Tensor]:
        """The pictures from the latents, and the latents from the pictures."""
        return self.model.decode(batch.latents), self.model.encode(batch.pixels)

    def loss(self, prediction: tuple[Tensor, Tensor], batch: Encoded) -> Tensor:
        """The autoencoder's loss of pixels + the squared error of the latents."""
        rebuilt, latents = prediction[0].float(), prediction[1].float()
        return pixel_loss(rebuilt, batch.pixels, self.recipe.edges) + ((latents - batch.latents) ** 2).mean()


def train(
    dataset: Path, run: Path, recipe_file: Path | None = None, *, resume: bool = False, show: Show | None = None
) -> None:
    """Train in the folder `run`; at the end its folder `vae_tiny` holds the averaged weights."""
    recipe = settled(TinyAutoencoderRecipe(), recipe_file, run, resume=resume)
    teacher, pictures = read_autoencoder(Path(recipe.autoencoder)), load_dataset(dataset)
    _require_latents(recipe, teacher)
    require_pictures(len(pictures.indices(split="train")), batch=recipe.batch)
    begin_run(run, recipe, pictures, resume=resume)
    teacher.eval().requires_grad_(False)
    latents = latents_of(teacher, pictures, pictures.indices(split="train"), run / "latents.pt")
    torch.manual_seed(recipe.seed)
    model = new_tiny_autoencoder(recipe)
    averages = Averages(model, (recipe.average,))
    fit(
        run,
        TinyAutoencoderTask(model, teacher, latents, pictures, recipe),
        LearningRate(recipe.rate, recipe.warmup, recipe.decay_at, recipe.steps),
        averages,
        steps=recipe.steps,
        batch=recipe.batch,
        show=show,
        resume=resume,
        optimizer=muon(model, outside(model)),
    )
    model.load_state_dict(averages.weights(model, recipe.average))
    finish(model.eval(), teacher, pictures, run)


def _require_latents(recipe: TinyAutoencoderRecipe, teacher: Autoencoder) -> None:
    """UsageError for latents of another kind than a tiny autoencoder of this shape has."""
    its, ours = ((each.latent_channels, each.factor) for each in (teacher.config, CONFIG))
    if its != ours:
        raise UsageError(
            f"autoencoder: {recipe.autoencoder} has {its[0]} channels and a factor of {its[1]}; what is trained here "
            f"is for {ours[0]} and {ours[1]}"
        )


def outside(model: TinyAutoencoder) -> tuple[str, ...]:
    """What AdamW trains, because it touches pixels or latents."""
    ends = [(name, len(getattr(model, name).layers) - 1) for name in ("encoder", "decoder")]
    return tuple(f"{name}.layers.{place}." for name, last in ends for place in (0, last))


def new_tiny_autoencoder(recipe: TinyAutoencoderRecipe) -> TinyAutoencoder:
    """A fresh one, or the one that `init` names."""
    model = TinyAutoencoder(CONFIG)
    if recipe.init:
        load_module(model, Path(recipe.init) / DIFFUSERS_WEIGHTS)
    return channels_last(model)


def finish(model: TinyAutoencoder, teacher: Autoencoder, dataset: Dataset, run: Path) -> None:
    """Say how good it is and write `vae_tiny`."""
    save_module(run / TINY, model, "AutoencoderTiny")
    held_out = to_model_range(torch.from_numpy(dataset.pixels(dataset.indices(split="held_out"))))
    if len(held_out):
        decoded, alone = psnr(model.decode, teacher.encode, held_out), psnr(model.decode, model.encode, held_out)
        note(
            f"{decoded:.2f} dB from the large one's latents on {len(held_out)} held-out pictures, {alone:.2f} from its "
            f"own; written to {run / TINY}"
        )
