"""Train the denoiser on, by what its own drawings are worth.

It draws as it will be asked to draw, with guidance; a reward looks at the finished pictures, and its gradient goes
through the decoder into the last latents. There it says how they should change, and the guided answers on the way are
moved so, each as if it were the last one (Xu et al. 2023, "ImageReward", section 4; Clark et al. 2023, "DRaFT", let the
gradient through one or a few steps of sampling too). What the denoiser learnt from pictures goes on beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fromnoise.data import Dataset, Picture, load_dataset
from fromnoise.data.captions import in_style, with_article
from fromnoise.diffusion.denoiser import denoiser, scalings
from fromnoise.diffusion.guidance import batched_pair, classifier_free
from fromnoise.diffusion.objectives import weighted_error
from fromnoise.diffusion.samplers import SAMPLERS
from fromnoise.diffusion.schedules import trailing
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.runtime.device import mixed_precision
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.training.callbacks import Averages, LearningRate
from fromnoise.training.denoiser import (
    SCHEDULE,
    SCHEDULER,
    SETS,
    STYLED,
    Captioned,
    DenoiserRecipe,
    DenoiserTask,
    Export,
    latents_of,
    new_unet,
    read_parts,
)
from fromnoise.training.judge import says_style
from fromnoise.training.judging import load_judge
from fromnoise.training.order import Draw, draws
from fromnoise.training.rewards import Asked, Reward, Worth, palettes_of
from fromnoise.training.rewordings import rewordings
from fromnoise.training.run import Show, begin_run, fit, require_pictures, settled
from fromnoise.training.teacher import MiniLM

BLURRED = 1.5
"""Above this noise level an answer's details are not yet those of the finished drawing: the slope is smoothed."""

STEEPEST = 2.0
"""No drawing counts more than with a slope of this length; the longest of 64 that were measured was 1.9."""

BETAS = (0.98, 0.99)
"""Adam's: slopes scatter much more than gradients of the pictures' own loss, so more of them are averaged."""


@dataclass(frozen=True)
class RewardedDenoiserRecipe:
    """Settings of a run. `judge` is what `fromnoise train judge` made, `init` a `unet` folder to go on from.

    A step draws `batch` pictures in `fewest` to `most` steps at `guidance`, and learns from `answers` of each drawing's
    answers at noise levels of at most `highest`, and from `real` training pictures. Of the drawings a share `elsewhere`
    is asked for in a style that the concept may not be drawn in (concepts with held-out pictures left out), `reworded`
    in words that no caption holds, `captions` by a caption, the others by their label and style. Styles with a palette,
    which are the hard ones, are asked for `exact` times as often as the training pictures are of them. `gain` is how
    much the reward counts beside the pictures' loss; `palettes`, `styles` and `concepts` weigh its parts (see
    `rewards.Worth`).
    """

    judge: str = "runs/judge/judge"
    text: str = str(EMBEDDED_MODEL)
    autoencoder: str = str(EMBEDDED_MODEL)
    init: str = str(EMBEDDED_MODEL / "unet")
    steps: int = 440
    batch: int = 32
    real: int = 44
    fewest: int = 6
    most: int = 9
    guidance: float = 4.0
    answers: int = 3
    highest: float = 3.5
    elsewhere: float = 0.24
    reworded: float = 0.19
    captions: float = 0.15
    exact: int = 2
    gain: float = 0.03
    palettes: float = 2.5
    styles: float = 0.55
    concepts: float = 0.5
    rate: float = 6e-5
    warmup: int = 30
    decay_at: int | None = None
    averages: tuple[int, ...] = (80,)
    export_every: int = 20
    compile: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """UsageError for fields that don't go together."""
        if self.fewest > self.most:
            raise UsageError(f"fewest is {self.fewest} and most {self.most}; it can't be more steps than that")
        if self.elsewhere + self.reworded + self.captions > 1:
            raise UsageError("elsewhere, reworded and captions are shares of the drawings: together at most 1")
        if (lowest := float(trailing(SCHEDULE, self.fewest)[-2])) > self.highest:
            raise UsageError(
                f"a drawing in {self.fewest} steps has no noise level of at most {self.highest:g}, the lowest is "
                f"{lowest:.2f}; give more steps as fewest, or a higher highest"
            )

    @property
    def ordinary(self) -> DenoiserRecipe:
        """How the denoiser goes on learning from pictures meanwhile."""
        return DenoiserRecipe(
            text=self.text,
            autoencoder=self.autoencoder,
            init=self.init,
            batch=self.real,
            reworded=0.4,
            labelled=0.5,
            mirror=False,
            noisy_from=350,
            averages=self.averages,
            export_every=self.export_every,
            compile=self.compile,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Way:
    """Drawings (B, C, h, w): the last latents, and at each noise level what went in and the answer without words."""

    last: Tensor
    sigmas: list[float]
    noisy: list[Tensor]
    plain: list[Tensor]


@dataclass(frozen=True)
class Rewarded:
    """A batch: of N answers the noisy latents and the answer without words (N, C, h, w), the level (N,), the words
    (N, M, C) and the slope of what the drawing lacks (N, C, h, w); that lack, a scalar; and training pictures.
    """

    noisy: Tensor
    plain: Tensor
    sigma: Tensor
    words: Tensor
    slope: Tensor
    lack: Tensor
    real: Captioned


class RewardedDenoiserTask:
    """Draw, and be told what the drawings lack."""

    def __init__(
        self,
        ordinary: DenoiserTask,
        autoencoder: Autoencoder,
        reward: Reward,
        held: set[str],
        recipe: RewardedDenoiserRecipe,
    ) -> None:
        self.ordinary, self.reward, self.held, self.recipe = ordinary, reward, held, recipe
        self.model, self.autoencoder = ordinary.model, autoencoder.requires_grad_(False)
        self.stand_ins = [row for row, each in enumerate(ordinary.pictures) for _ in range(self.often(each.style))]
        styles = sorted({each.style for each in ordinary.pictures})
        self.styles = [style for style in styles for _ in range(self.often(style))]

    def often(self, style: str) -> int:
        """How often a style is asked for, as a multiple."""
        return self.recipe.exact if style in self.reward.palettes else 1

    def batch(self, step: int) -> Rewarded:
        """Drawings by the weights as they are, a pure function of these and of the step."""
        recipe = self.recipe
        chosen = draws(recipe.seed, step, recipe.batch, len(self.stand_ins))
        asked = [self.ask(each) for each in chosen]
        with torch.no_grad(), mixed_precision():
            words = self.ordinary.text.encode([*(each.text for each in asked), ""])
        steps = recipe.fewest + step % (recipe.most - recipe.fewest + 1)
        way = self.drawn(words, chosen, steps)
        slope, lack = self.slope(way.last, asked, chosen)
        picked = [self.picked(way, slope, row, draw) for row, draw in enumerate(chosen)]
        noisy, plain, sigma, slopes = (torch.cat(each) for each in zip(*picked, strict=True))
        said = words[:-1].repeat_interleave(len(sigma) // len(chosen), 0)
        return Rewarded(noisy, plain, sigma, said, slopes, lack, self.ordinary.batch(step))

    def ask(self, draw: Draw) -> Asked:
        """What the drawing in the place of a training picture is asked for."""
        recipe, picture = self.recipe, self.ordinary.pictures[self.stand_ins[draw.sample]]
        kind, which, wording = torch.rand(3, generator=draw.generator("ask"), dtype=torch.float64).tolist()
        others = self.ordinary.reworded.get(picture.concept, ())
        if kind < recipe.captions:
            text = picture.captions[int(which * len(picture.captions))]
            return Asked(text, picture.concept, picture.style if says_style(picture, text) else None)
        kind -= recipe.captions
        if kind < recipe.reworded and others:
            return _asked(others[int(which * len(others))], picture, picture.style, wording)
        elsewhere = 0 <= kind - recipe.reworded < recipe.elsewhere and picture.concept not in self.held
        style = self.styles[int(which * len(self.styles))] if elsewhere else picture.style
        return _asked(with_article(picture.label), picture, style, wording * STYLED)

    @torch.no_grad()
    def drawn(self, words: Tensor, chosen: Sequence[Draw], steps: int) -> Way:
        """Draw with DPM-Solver++(2M); the last of the words are the empty prompt's."""
        count, schedule = len(chosen), self.ordinary.schedule
        said = torch.cat([words[-1:].expand(count, -1, -1), words[:-1]])
        both = batched_pair(denoiser(lambda x, time: self.answer(x, time, said), schedule, self.prediction))
        plain: list[Tensor] = []

        def pair(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            worded, unworded = both(x, sigma)
            plain.append(unworded)
            return worded, unworded

        sigmas = trailing(schedule, steps)
        shape = self.ordinary.latents.shape[2:]
        noise = torch.stack([torch.randn(shape, generator=each.generator("drawing")) for each in chosen])
        x = noise * (float(sigmas[0]) ** 2 + 1) ** 0.5
        with mixed_precision():
            seen = list(SAMPLERS["dpmpp-2m"](classifier_free(pair, self.recipe.guidance), x, sigmas))
        return Way(seen[-1].x, sigmas[:-1].tolist(), [each.noisy for each in seen], plain)

    def slope(self, latents: Tensor, asked: Sequence[Asked], chosen: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        """How the drawings' lack grows with their latents (B, C, h, w), and the mean lack."""
        latents = latents.clone().requires_grad_(True)
        with torch.enable_grad(), mixed_precision():
            pictures = self.autoencoder.decode(latents).float()
        lack = self.reward.shortfall(pictures, asked, chosen)
        (slope,) = torch.autograd.grad(lack.sum(), latents)
        length = slope.flatten(1).norm(dim=1)[:, None, None, None]
        return slope * (STEEPEST / length.clamp(min=STEEPEST)), lack.detach().mean()

    def picked(self, way: Way, slope: Tensor, row: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Some answers of one drawing, by chance: what went in, what it is without words, its level, its slope."""
        low = [index for index, sigma in enumerate(way.sigmas) if sigma <= self.recipe.highest]
        order = torch.randperm(len(low), generator=draw.generator("answers"))[: self.recipe.answers].tolist()
        some = [low[index] for index in order]
        sigma = torch.tensor([way.sigmas[index] for index in some])
        soft = F.avg_pool2d(F.pad(slope[row : row + 1], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        slopes = torch.where((sigma > BLURRED)[:, None, None, None], soft, slope[row : row + 1])
        noisy, plain = (torch.stack([each[index][row] for index in some]) for each in (way.noisy, way.plain))
        return noisy, plain, sigma, slopes

    @property
    def prediction(self) -> str:
        """What the network predicts."""
        return str(SCHEDULER["prediction_type"])

    def answer(self, scaled: Tensor, times: Tensor, words: Tensor) -> Tensor:
        """The network's v for scaled latents."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.ordinary.network(scaled.contiguous(memory_format=torch.channels_last), times.float(), words)

    def predict(self, batch: Rewarded) -> tuple[Tensor, Tensor]:
        """The guided answers again, and the network's v for the training pictures."""
        scale, real, count = scalings(self.prediction, batch.sigma), batch.real, len(batch.sigma)
        v = self.answer(
            torch.cat([scale.input * batch.noisy, real.example.input]),
            torch.cat([self.ordinary.schedule.time(batch.sigma), real.times.float()]),
            torch.cat([batch.words, real.words]),
        ).float()
        worded = scale.skip * batch.noisy + scale.out * v[:count]
        return batch.plain + self.recipe.guidance * (worded - batch.plain), v[count:]

    def loss(self, prediction: tuple[Tensor, Tensor], batch: Rewarded) -> Tensor:
        """What the drawings lack, with the slope of the answers, + the training pictures' loss."""
        guided, v = prediction
        along = (guided * batch.slope).sum() / len(guided)
        lack = batch.lack + along - along.detach()
        return self.recipe.gain * lack + weighted_error(v, batch.real.example.target, batch.real.example.weight)


def _asked(phrase: str, picture: Picture, style: str, wording: float) -> Asked:
    """A phrase for the picture's concept, two of three times in a style: always for a wording below STYLED."""
    if wording >= STYLED:
        return Asked(phrase, picture.concept, None)
    return Asked(in_style(phrase, SETS[style], wording / STYLED), picture.concept, style)


def train(
    dataset: Path, run: Path, recipe_file: Path | None = None, *, resume: bool = False, show: Show | None = None
) -> None:
    """Train in the folder `run`, where `model-<length>` is a whole model of each average's weights as it goes."""
    recipe = settled(RewardedDenoiserRecipe(), recipe_file, run, resume=resume)
    parts, pictures, judge = read_parts(recipe.ordinary), load_dataset(dataset), load_judge(Path(recipe.judge))
    rows = pictures.indices(split="train")
    require_pictures(len(rows), batch=recipe.batch, real=recipe.real)
    begin_run(run, recipe, pictures, resume=resume)
    latents = latents_of(parts.autoencoder, pictures, rows, run / "latents.pt")
    said = rewordings(pictures, MiniLM(run / "teacher")) if recipe.reworded else None
    torch.manual_seed(recipe.seed)
    model = new_unet(recipe.ordinary)
    averages = Averages(model, recipe.averages, every=1)
    ordinary = DenoiserTask(model, parts.text, latents, [pictures.pictures[row] for row in rows], recipe.ordinary, said)
    reward = Reward(judge, palettes_of(pictures), Worth(recipe.palettes, recipe.styles, recipe.concepts))
    note(f"{len(rows)} pictures; styles with a palette: {', '.join(reward.palettes) or 'none'}")
    fit(
        run,
        RewardedDenoiserTask(ordinary, parts.autoencoder, reward, held_out_concepts(pictures), recipe),
        LearningRate(recipe.rate, recipe.warmup, recipe.decay_at, recipe.steps),
        averages,
        steps=recipe.steps,
        batch=recipe.batch,
        show=show,
        resume=resume,
        optimizer=torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=BETAS, weight_decay=0.0, fused=True),
        extra=[Export(run, recipe.ordinary, averages, pictures, parts)],
    )


def held_out_concepts(dataset: Dataset) -> set[str]:
    """The code points of the concepts of which a family's drawing is held out."""
    return {dataset.pictures[row].concept for row in dataset.indices(split="held_out")}
