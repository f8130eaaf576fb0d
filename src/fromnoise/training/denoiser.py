"""Train the denoiser: say what a noisy picture showed, given its caption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.checkpoints.folder import load_module, read_json, save_module
from fromnoise.data import Dataset, Picture, load_dataset
from fromnoise.diffusion.objectives import Example, example, weighted_error
from fromnoise.diffusion.schedules import NoiseSchedule
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.text import TextEncoder, Tokenizer
from fromnoise.training.autoencoder import to_model_range
from fromnoise.training.callbacks import Averages, Every, LearningRate
from fromnoise.training.learner import Learner
from fromnoise.training.order import Draw, draws
from fromnoise.training.recipe import read_recipe
from fromnoise.training.run import Show, fit, open_run

CONFIG = UNetConfig(
    sample_size=16,
    in_channels=8,
    out_channels=8,
    block_out_channels=(128, 320),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=(4, 8),
    cross_attention_dim=256,
    use_linear_projection=True,
)

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "sigma_min": None,
    "sigma_max": None,
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
}
"""`scheduler_config.json` of what is trained here: SD's own betas, v-prediction, every field stated."""


@dataclass(frozen=True)
class DenoiserRecipe:
    """Settings of a run. `parts` is the model folder whose text encoder and autoencoder are used.

    `init` continues from a U-Net's weights; `decay_at` and `steps` end a run with a linear decay.
    """

    parts: str = str(EMBEDDED_MODEL)
    init: str | None = None
    steps: int = 1_000_000
    batch: int = 128
    rate: float = 6e-4
    warmup: int = 400
    decay_at: int | None = None
    gamma: float = 5.0
    empty: float = 0.1
    averages: tuple[int, ...] = (400, 2000)
    export_every: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Captioned:
    """A batch: the network's examples, their timesteps (B,) and their words (B, M, C)."""

    example: Example
    times: Tensor
    words: Tensor


class DenoiserTask:
    """Latents of the training pictures, made noisy; the network predicts v."""

    def __init__(
        self, model: UNet, text: TextEncoder, latents: Tensor, pictures: list[Picture], recipe: DenoiserRecipe
    ) -> None:
        self.model, self.text, self.recipe = model, text, recipe
        self.latents, self.pictures = latents, pictures  # (N, 2, C, h, w): as drawn, and mirrored
        self.schedule = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012)

    def batch(self, step: int) -> Captioned:
        """Which pictures, how noisy and how captioned is a pure function of (seed, epoch, sample)."""
        chosen = draws(self.recipe.seed, step, self.recipe.batch, len(self.pictures))
        latents, noise, captions = zip(*map(self.sample, chosen), strict=True)
        times = torch.tensor([int(draw.uniform() * len(self.schedule)) for draw in chosen])
        sigma = self.schedule.sigmas[times].float()
        parts = example(torch.stack(latents).float(), torch.stack(noise), sigma, "v_prediction", self.recipe.gamma)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            words = self.text.encode(list(captions))
        return Captioned(parts, times, words)

    def sample(self, draw: Draw) -> tuple[Tensor, Tensor, str]:
        """One draw's latents, noise and caption."""
        own, picture = draw.generator("denoiser"), self.pictures[draw.sample]
        chance = torch.rand(3, generator=own).tolist()
        mirrored = int(picture.flip and chance[0] < 0.5)
        caption = picture.captions[int(chance[1] * len(picture.captions))]
        latents = self.latents[draw.sample, mirrored]
        return latents, torch.randn(latents.shape, generator=own), "" if chance[2] < self.recipe.empty else caption

    def predict(self, batch: Captioned) -> Tensor:
        """The network's v."""
        scaled = batch.example.input.contiguous(memory_format=torch.channels_last)
        return self.model(scaled, batch.times, batch.words)

    def loss(self, prediction: Tensor, batch: Captioned) -> Tensor:
        """Min-SNR weighted squared error."""
        return weighted_error(prediction, batch.example.target, batch.example.weight)


@torch.inference_mode()
def encode_pictures(autoencoder: Autoencoder, dataset: Dataset, rows: list[int]) -> Tensor:
    """Latents of the pictures at `rows`, as they are and mirrored: (N, 2, C, h, w) float16."""

    def encoded() -> Iterator[Tensor]:
        for start in range(0, len(rows), 64):
            pixels = to_model_range(torch.from_numpy(dataset.all_pixels[rows[start : start + 64]]))
            with torch.autocast("cpu", torch.bfloat16):
                both = [autoencoder.encode(each.contiguous(memory_format=torch.channels_last)) for each in (pixels, pixels.flip(3))]
            yield torch.stack(both, 1).half()

    return torch.cat(list(encoded())).clone()


def latents_of(autoencoder: Autoencoder, dataset: Dataset, rows: list[int], cache: Path) -> Tensor:
    """`encode_pictures`, kept in `cache` between runs."""
    if cache.exists():
        return torch.load(cache, weights_only=True)
    latents = encode_pictures(autoencoder, dataset, rows)
    torch.save(latents, cache)
    return latents


def load_parts(folder: Path) -> tuple[TextEncoder, Autoencoder]:
    """The frozen text encoder and autoencoder of a model folder."""
    text = ClipText(TextConfig.from_json(read_json(folder / "text_encoder" / "config.json")))
    autoencoder = Autoencoder(AutoencoderConfig.from_json(read_json(folder / "vae" / "config.json")))
    load_module(text, folder / "text_encoder" / "model.safetensors")
    load_module(autoencoder, folder / "vae" / "diffusion_pytorch_model.safetensors")
    return TextEncoder(Tokenizer.read(folder / "tokenizer"), text.requires_grad_(False)), autoencoder


def train(dataset: Path, run: Path, recipe_file: Path | None = None, *, resume: bool = False, show: Show | None = None) -> None:
    """Train in the folder `run`; the averaged weights are exported to `run/unet-<length>` as it goes."""
    recipe = read_recipe(DenoiserRecipe(), recipe_file)
    open_run(run, recipe)
    text, autoencoder = load_parts(Path(recipe.parts))
    pictures = load_dataset(dataset)
    rows = pictures.indices(split="train")
    latents = latents_of(autoencoder.to(memory_format=torch.channels_last), pictures, rows, run / "latents.pt")
    torch.manual_seed(recipe.seed)
    model = new_unet(recipe)
    task = DenoiserTask(model, text, latents, [pictures.pictures[row] for row in rows], recipe)
    averages = Averages(model, recipe.averages)

    def export(_: Learner) -> None:
        for length in recipe.averages:
            save_module(run / f"unet-{length}", model, "UNet2DConditionModel", weights=averages.weights(model, length))

    note(f"{len(rows)} pictures, {sum(each.numel() for each in model.parameters()) / 1e6:.1f} M parameters")
    fit(
        run,
        task,
        LearningRate(recipe.rate, recipe.warmup, recipe.decay_at, recipe.steps),
        averages,
        steps=recipe.steps,
        batch=recipe.batch,
        show=show,
        resume=resume,
        extra=[Every(recipe.export_every, export)],
    )


def new_unet(recipe: DenoiserRecipe) -> UNet:
    """A fresh network whose last layers start at zero, or the weights that `init` names."""
    model = UNet(CONFIG)
    if recipe.init:
        load_module(model, Path(recipe.init) / "diffusion_pytorch_model.safetensors")
    else:
        start_silent(model)
    return model.to(memory_format=torch.channels_last)


def start_silent(model: UNet) -> None:
    """Zero the last layer of every residual branch, so that training starts from the identity."""
    for name, parameter in model.named_parameters():
        if name.endswith(("conv2.weight", "conv_out.weight", "proj_out.weight")):
            torch.nn.init.zeros_(parameter)
