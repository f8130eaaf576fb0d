"""Train the denoiser: say what a noisy picture showed, given its caption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fromnoise.checkpoints.folder import DIFFUSERS_WEIGHTS, load_module, read_json, save_module
from fromnoise.checkpoints.model_folder import write_model_folder
from fromnoise.checkpoints.tokenizers import Texts, read_texts, write_texts
from fromnoise.data import Dataset, Picture, load_dataset
from fromnoise.data.captions import in_style, with_article, words
from fromnoise.data.sources import PICTURE_SETS
from fromnoise.diffusion.objectives import Example, example, weighted_error
from fromnoise.diffusion.schedules import NoiseSchedule
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.runtime.device import channels_last, mixed_precision
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.text import TextEncoder
from fromnoise.training.autoencoder import to_model_range
from fromnoise.training.callbacks import Averages, Every, LearningRate
from fromnoise.training.claims import kept
from fromnoise.training.learner import Learner
from fromnoise.training.optimizers import muon
from fromnoise.training.order import Draw, draws, seed_after
from fromnoise.training.retrieval import known_concepts, read_text_encoder
from fromnoise.training.rewordings import rewordings
from fromnoise.training.run import Show, begin_run, fit, require_pictures, settled
from fromnoise.training.teacher import MiniLM
from fromnoise.training.variants import Variants, encoding, variants_of

CONFIG = UNetConfig(
    sample_size=16,
    in_channels=8,
    out_channels=8,
    block_out_channels=(128, 320),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=(2, 5),
    cross_attention_dim=256,
    use_linear_projection=True,
    addition_embed_type="text",
    addition_embed_type_num_heads=8,
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

SCHEDULE = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012)
"""The noise levels of its timesteps."""

MOST_WORDS = 18
"""A caption with what is said of a variant is no longer: colours and grounds come in many pieces."""

STYLED = 2 / 3
"""Share of the texts that name a style, as of the pictures' own captions."""

QUIET = 0.15
"""Share of the pictures that are shown with less noise than a recipe's `noisy_from`."""

SETS = {each.style: each for each in PICTURE_SETS}
"""The picture sets by style."""


@dataclass(frozen=True)
class DenoiserRecipe:
    """Settings of a run. `text` and `autoencoder` are the model (or run) folders whose parts are used.

    `init` names a `unet` folder and continues from its weights, on other noise than theirs; `decay_at` and `steps` end
    a run with a linear decay. `compile` runs the network through torch.compile, which needs a C++ compiler and a few
    minutes, and then trains a third faster. A share `reworded` of the pictures is asked for in words that no caption
    holds; a share `varied` of those that are asked for in words is in other colours, on other grounds or of square
    pixels, and their captions say so. A share `labelled` is asked for by label and style alone, as most drawings are.
    Without `mirror` every picture is shown as it was drawn: its shape is then one thing to learn, not two.

    All timesteps come equally often, or with `noisy_from` those from there on for 85 % of the pictures, for a model
    that does details well and shapes not yet (timestep 350 is a noise level of 1).

    Min-SNR's weights of errors (`gamma`) are raised to `power`: at 1 the noise levels at which a drawing's shapes are
    decided hardly count; at 0.5 all timesteps have about the same share of the loss, as they have by the learnt weights
    of Karras et al. 2024 ("EDM2"); at 0 answers count alike.
    """

    text: str = str(EMBEDDED_MODEL)
    autoencoder: str = str(EMBEDDED_MODEL)
    init: str | None = None
    steps: int = 1_000_000
    batch: int = 128
    rate: float = 6e-4
    warmup: int = 400
    decay_at: int | None = None
    gamma: float = 5.0
    power: float = 0.5
    empty: float = 0.1
    reworded: float = 0.0
    varied: float = 0.0
    labelled: float = 0.0
    mirror: bool = True
    noisy_from: int = 0
    averages: tuple[int, ...] = (400, 2000)
    export_every: int = 500
    compile: bool = True
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
        self,
        model: UNet,
        text: TextEncoder,
        latents: Tensor,
        pictures: list[Picture],
        recipe: DenoiserRecipe,
        reworded: Mapping[str, tuple[str, ...]] | None = None,
        variants: Variants | None = None,
    ) -> None:
        self.model, self.text, self.recipe = model, text, recipe
        self.reworded, self.variants = reworded or {}, variants
        self.latents, self.pictures = latents, pictures  # (N, 2, C, h, w): as drawn, and mirrored
        self.schedule = SCHEDULE
        self.network = torch.compile(model) if recipe.compile else model

    def batch(self, step: int) -> Captioned:
        """Which pictures, how noisy and how captioned is a pure function of (seed, epoch, sample)."""
        chosen = draws(self.recipe.seed, step, self.recipe.batch, len(self.pictures))
        latents, noise, captions = zip(*map(self.sample, chosen), strict=True)
        times = torch.tensor([self.timestep(draw.uniform()) for draw in chosen])
        sigma = self.schedule.sigmas[times].float()
        clean, weighs = torch.stack(latents).float(), (self.recipe.gamma, self.recipe.power)
        parts = example(clean, torch.stack(noise), sigma, "v_prediction", *weighs)
        with torch.no_grad(), mixed_precision():
            words = self.text.encode(list(captions))
        return Captioned(parts, times, words)

    def timestep(self, place: float) -> int:
        """The timestep at a place in [0, 1) of all that are to be shown, the least noisy first."""
        first = self.recipe.noisy_from
        quiet = QUIET if first else 0.0
        if place < quiet:
            return int(place / quiet * first)
        return first + int((place - quiet) / (1 - quiet) * (len(self.schedule) - first))

    def sample(self, draw: Draw) -> tuple[Tensor, Tensor, str]:
        """One draw's latents, noise and caption."""
        own, picture = draw.generator("denoiser"), self.pictures[draw.sample]
        chance = torch.rand(3, generator=own).tolist()
        mirrored = int(self.recipe.mirror and picture.flip and chance[0] < 0.5)
        latents = self.latents[draw.sample, mirrored]
        noise = torch.randn(latents.shape, generator=own)
        if chance[2] < self.recipe.empty:
            return latents, noise, ""
        caption = self.caption(picture, chance[1], draw)
        varies, which = torch.rand(2, generator=draw.generator("varied")).tolist()
        if self.variants and varies < self.recipe.varied:
            latents, said = self.variants.pick(draw.sample, which)
            caption = with_said(caption, said, picture)
        return latents, noise, caption

    def caption(self, picture: Picture, chance: float, draw: Draw) -> str:
        """Label and style, one of the picture's captions, or another text, two of three in the picture's style."""
        labelled, wording = torch.rand(2, generator=draw.generator("labelled")).tolist()
        if labelled < self.recipe.labelled:
            return in_style(with_article(picture.label), SETS[picture.style], wording)
        others = self.reworded.get(picture.concept, ())
        reworded, which, styled = torch.rand(3, generator=draw.generator("reworded")).tolist()
        if not others or reworded >= self.recipe.reworded:
            return picture.captions[int(chance * len(picture.captions))]
        said = others[int(which * len(others))]
        return said if styled >= STYLED else in_style(said, SETS[picture.style], styled / STYLED)

    def predict(self, batch: Captioned) -> Tensor:
        """The network's v."""
        scaled = batch.example.input.contiguous(memory_format=torch.channels_last)
        with sdpa_kernel(SDPBackend.MATH):  # the flash kernel's gradient is several times slower for so few tokens
            return self.network(scaled, batch.times, batch.words)

    def loss(self, prediction: Tensor, batch: Captioned) -> Tensor:
        """Min-SNR weighted squared error."""
        return weighted_error(prediction, batch.example.target, batch.example.weight)


def with_said(caption: str, said: str, picture: Picture) -> str:
    """A caption, or the picture's label where that would get too long, with what else is said of the picture."""
    whole = f"{caption}, {said}".strip(", ")
    return whole if len(words(whole)) <= MOST_WORDS else f"{with_article(picture.label)}, {said}"


@torch.inference_mode()
def encode_pictures(autoencoder: Autoencoder, dataset: Dataset, rows: list[int]) -> Tensor:
    """Latents of the pictures at `rows`, as they are and mirrored: (N, 2, C, h, w) float16."""

    def encoded() -> Iterator[Tensor]:
        for start in range(0, len(rows), 64):
            pixels = to_model_range(torch.from_numpy(dataset.all_pixels[rows[start : start + 64]]))
            both = (each.contiguous(memory_format=torch.channels_last) for each in (pixels, pixels.flip(3)))
            with mixed_precision():
                yield torch.stack([autoencoder.encode(each) for each in both], 1).half()

    return torch.cat(list(encoded())).clone()


def latents_of(autoencoder: Autoencoder, dataset: Dataset, rows: list[int], cache: Path) -> Tensor:
    """`encode_pictures`, kept in `cache` between runs of the same pictures and autoencoder."""
    made_of = encoding(autoencoder, dataset, rows)
    return kept(cache, made_of, lambda: encode_pictures(autoencoder, dataset, rows))


@dataclass(frozen=True)
class Parts:
    """What a denoiser is trained with and drawn with: the text encoder, its tokenizer's files, the autoencoder."""

    text: TextEncoder
    tokenizer: Texts
    autoencoder: Autoencoder


def read_parts(recipe: DenoiserRecipe) -> Parts:
    """The parts that the recipe names; UsageError for those that don't fit the network."""
    text, autoencoder = read_text_encoder(Path(recipe.text)), read_autoencoder(Path(recipe.autoencoder))
    width, channels = text.clip_text.config.hidden_size, autoencoder.config.latent_channels
    if width != CONFIG.cross_attention_dim:
        raise UsageError(f"text: {recipe.text} has a width of {width}, not the denoiser's {CONFIG.cross_attention_dim}")
    if channels != CONFIG.in_channels:
        raise UsageError(
            f"autoencoder: {recipe.autoencoder} has {channels} channels, not the denoiser's {CONFIG.in_channels}"
        )
    text.clip_text.requires_grad_(False)
    return Parts(text, read_texts(Path(recipe.text) / "tokenizer"), autoencoder)


def read_autoencoder(folder: Path) -> Autoencoder:
    """The autoencoder of a model folder or an autoencoder's run."""
    config = AutoencoderConfig.from_json(read_json(folder / "vae" / "config.json"))
    module, _ = load_module(Autoencoder(config), folder / "vae" / DIFFUSERS_WEIGHTS)
    return channels_last(module)


def train(
    dataset: Path, run: Path, recipe_file: Path | None = None, *, resume: bool = False, show: Show | None = None
) -> None:
    """Train in the folder `run`, where `model-<length>` is a whole model of each average's weights as it goes."""
    recipe = settled(DenoiserRecipe(), recipe_file, run, resume=resume)
    parts, pictures = read_parts(recipe), load_dataset(dataset)
    rows = pictures.indices(split="train")
    require_pictures(len(rows), batch=recipe.batch)
    begin_run(run, recipe, pictures, resume=resume)
    if recipe.init:
        recipe = replace(recipe, seed=seed_after(recipe.seed, Path(recipe.init) / DIFFUSERS_WEIGHTS))
    latents = latents_of(parts.autoencoder, pictures, rows, run / "latents.pt")
    variants = variants_of(parts.autoencoder, pictures, rows, run / "variants.pt") if recipe.varied else None
    reworded = rewordings(pictures, MiniLM(run / "teacher")) if recipe.reworded else None
    torch.manual_seed(recipe.seed)
    model = new_unet(recipe)
    averages = Averages(model, recipe.averages)
    note(f"{len(rows)} pictures, {sum(each.numel() for each in model.parameters()) / 1e6:.1f} M parameters")
    fit(
        run,
        DenoiserTask(model, parts.text, latents, [pictures.pictures[row] for row in rows], recipe, reworded, variants),
        LearningRate(recipe.rate, recipe.warmup, recipe.decay_at, recipe.steps),
        averages,
        steps=recipe.steps,
        batch=recipe.batch,
        show=show,
        resume=resume,
        optimizer=muon(model, ("conv_in", "conv_out", "time_embedding", "add_embedding")),
        extra=[Export(run, recipe, averages, pictures, parts)],
    )


class Export(Every):
    """Writes whole models of the averaged weights, which can draw while training goes on."""

    def __init__(self, run: Path, recipe: DenoiserRecipe, averages: Averages, dataset: Dataset, parts: Parts) -> None:
        super().__init__(recipe.export_every, self.export)
        self.run, self.recipe, self.averages, self.dataset, self.parts = run, recipe, averages, dataset, parts
        self._whole: set[Path] = set()

    def export(self, learner: Learner) -> None:
        """Write now."""
        for length in self.recipe.averages:
            self.write(self.run / f"model-{length}", learner.task.model, length)

    def finish(self, learner: Learner) -> None:
        """The end of the run counts too."""
        self.export(learner)

    def write(self, folder: Path, model: nn.Module, length: int) -> None:
        """The model folder of one average, the first time with all that the network is trained with."""
        weights = self.averages.weights(model, length)
        save_module(folder / "unet", model, "UNet2DConditionModel", weights=weights)
        if folder not in self._whole:
            text = self.parts.text
            save_module(folder / "text_encoder", text.clip_text, "CLIPTextModel", file="model.safetensors")
            save_module(folder / "vae", self.parts.autoencoder, "AutoencoderKL")
            write_texts(folder / "tokenizer", self.parts.tokenizer)
            known_concepts(self.dataset, text).save(folder)
            write_model_folder(folder, {}, SCHEDULER)
            self._whole.add(folder)


def new_unet(recipe: DenoiserRecipe) -> UNet:
    """A fresh network whose last layers start at zero, or the weights that `init` names, which may lack the embedding
    of the text: silent, it changes nothing. FromnoiseError for a network of another shape.
    """
    model = UNet(CONFIG)
    if recipe.init:
        folder = Path(recipe.init)
        shape = UNetConfig.from_json(read_json(folder / "config.json"))
        added = {name: getattr(CONFIG, name) for name in ("addition_embed_type", "addition_embed_type_num_heads")}
        if replace(shape, **added) != CONFIG:
            raise FromnoiseError(f"{folder} has another shape than what is trained here")
        known, _ = load_module(UNet(shape), folder / DIFFUSERS_WEIGHTS)
        model.load_state_dict(known.state_dict(), strict=False)
    else:
        start_silent(model)
    return channels_last(model)


def start_silent(model: UNet) -> None:
    """Zero the last layer of every residual branch, so that training starts from the identity."""
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0].endswith(("conv2", "conv_out", "proj_out")):
            torch.nn.init.zeros_(parameter)
