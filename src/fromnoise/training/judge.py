"""Train a judge: pictures beside MiniLM's vectors of their captions, among clusters of concepts, and among styles.

Judge A (the recipe's defaults) selects checkpoints; judge B (`recipes/judge-b.toml`: another seed, another
architecture) is kept for reported figures. Neither sees the pictures of the judges' test fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.checkpoints.folder import load_module, save_module, write_json, write_tensors
from fromnoise.data import Dataset, Picture, load_dataset
from fromnoise.data.sources import PICTURE_SETS
from fromnoise.models.judge import Judge, JudgeConfig, Reading, merged
from fromnoise.runtime.device import channels_last
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.seeds import generator
from fromnoise.training.autoencoder import to_model_range
from fromnoise.training.callbacks import Averages, Every, LearningRate
from fromnoise.training.optimizers import muon
from fromnoise.training.order import draws
from fromnoise.training.run import Show, begin_run, fit, require_pictures, settled
from fromnoise.training.teacher import cached_vectors
from fromnoise.training.views import FAITHFUL, views

OUTSIDE = ("encoder.near.0", "encoder.place", "strokes.near", "text_head", "cluster_head", "style_head")
"""What AdamW trains, because it touches pixels, places or answers."""


@dataclass(frozen=True)
class JudgeRecipe:
    """Settings of a run. From step `growth[i]` on, pictures are read at `sides[i]` pixels.

    `texts` and `names` weigh the losses of what is shown; `plain` of a step's pictures teach the style, whose branch
    shares no weight with the rest. `evenness` is the power that vectors are whitened by; `init` names a judge's folder
    to go on from.
    """

    architecture: str = "residual"
    width: int = 32
    shades: int = 8
    sides: tuple[int, ...] = (32, 48, 64)
    growth: tuple[int, ...] = (0, 1500, 2100)
    steps: int = 2600
    batch: int = 128
    plain: int = 48
    rate: float = 2e-3
    warmup: int = 50
    decay_at: int | None = 1300
    texts: float = 1.0
    names: float = 0.5
    smoothing: float = 0.1
    sharpness: float = 25.0
    evenness: float = 0.5
    init: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """UsageError for fields that don't go together."""
        sides, growth = list(self.sides), list(self.growth)
        if len(sides) != len(growth) or growth[0] != 0 or growth != sorted(growth):
            raise UsageError(
                f"growth has the step from which on each of sides is read, 0 first, then more; "
                f"{growth} is not that of sides {sides}"
            )
        if min(self.batch, self.plain) < 2:
            raise UsageError("batch and plain must be 2 or more: a judge learns by comparing pictures")


@dataclass(frozen=True)
class Concepts:
    """The concepts of a dataset in order of code points, and the vectors of all that they are called.

    `vectors` (W, text_dim) holds the wordings, `first` (C + 1,) where each concept's begin, `cluster` (C,) which
    cluster each is of.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    clusters: tuple[str, ...]
    cluster: Tensor
    vectors: Tensor
    first: Tensor

    @cached_property
    def means(self) -> Tensor:
        """Each concept's mean vector, (C, text_dim), of length 1."""
        bounds = self.first.tolist()
        parts = [self.vectors[start:end].mean(0) for start, end in pairwise(bounds)]
        return F.normalize(torch.stack(parts), dim=1)

    def one_wording_each(self, own: torch.Generator) -> Tensor:
        """A vector of every concept, (C, text_dim), by chance."""
        counts = self.first.diff()
        return self.vectors[self.first[:-1] + (torch.rand(len(counts), generator=own) * counts).long()]


@dataclass(frozen=True)
class Judged:
    """A batch: views (B, 3, s, s) and their clusters (B,), faithful views (P, 3, S, S) of the first P pictures and
    their styles (P,), and one wording of every concept.
    """

    pictures: Tensor
    clusters: Tensor
    plain: Tensor
    styles: Tensor
    wordings: Tensor


class JudgeTask:
    """Tell what the pictures of the judges' training fold show."""

    def __init__(self, model: Judge, dataset: Dataset, concepts: Concepts, recipe: JudgeRecipe) -> None:
        self.model, self.concepts, self.recipe = model, concepts, recipe
        rows = dataset.indices(judge_fold="train")
        chosen = [dataset.pictures[row] for row in rows]
        number = {name: index for index, name in enumerate(concepts.names)}
        self.pictures = shrunk(dataset, rows, recipe.sides[-1])
        self.clusters = concepts.cluster[torch.tensor([number[each.concept] for each in chosen])]
        self.styles = torch.tensor([model.config.styles.index(each.style) for each in chosen])
        self.may_flip = torch.tensor([each.flip for each in chosen])
        self.members = F.one_hot(concepts.cluster, len(concepts.clusters)).float()

    def side(self, step: int) -> int:
        """The pixels that pictures are read at: small ones first, which teach most at a quarter of the price."""
        stages = zip(self.recipe.sides, self.recipe.growth, strict=True)
        reached = [side for side, start in stages if step >= start]
        return reached[-1]

    def batch(self, step: int) -> Judged:
        """Views of the next pictures, and a wording of each concept to hold them against."""
        chosen = draws(self.recipe.seed, step, self.recipe.batch, len(self.pictures))
        rows = torch.tensor([draw.sample for draw in chosen])
        pictures, may, near = self.pictures[rows].float() / 127.5 - 1, self.may_flip[rows], slice(self.recipe.plain)
        seen = views(pictures, chosen, may, self.side(step))
        plain = views(pictures[near], chosen[near], may[near], self.recipe.sides[-1], FAITHFUL)
        return Judged(
            pictures=seen.contiguous(memory_format=torch.channels_last),
            clusters=self.clusters[rows],
            plain=plain.contiguous(memory_format=torch.channels_last),
            styles=self.styles[rows[near]],
            wordings=self.concepts.one_wording_each(generator("wordings", self.recipe.seed, step)),
        )

    def predict(self, batch: Judged) -> Reading:
        """The judge's reading."""
        return self.model(batch.pictures, batch.plain)

    @torch.autocast("cpu", enabled=False)
    def loss(self, prediction: Reading, batch: Judged) -> Tensor:
        """Contrast with the wordings of all concepts (Radford et al. 2021), and two classifications."""
        recipe = self.recipe
        likeness = recipe.sharpness * prediction.embedding @ batch.wordings.T
        texts = merged(likeness, self.members)
        return (
            recipe.texts * F.cross_entropy(texts, batch.clusters, label_smoothing=recipe.smoothing)
            + recipe.names * F.cross_entropy(prediction.clusters, batch.clusters, label_smoothing=recipe.smoothing)
            + F.cross_entropy(prediction.styles, batch.styles)
        )


def shrunk(dataset: Dataset, rows: Sequence[int], side: int) -> Tensor:
    """The pictures at `rows` averaged down, (N, 3, side, side) uint8."""
    parts = [dataset.all_pixels[rows[start : start + 256]] for start in range(0, len(rows), 256)]
    return torch.cat([_shrink(part, side) for part in parts])


def _shrink(pixels: np.ndarray, side: int) -> Tensor:
    small = F.interpolate(to_model_range(torch.from_numpy(pixels)), size=(side, side), mode="area")
    return ((small + 1) * 127.5).round().to(torch.uint8)


def wordings(pictures: Sequence[Picture]) -> list[str]:
    """The distinct captions of pictures that say nothing of their style."""
    said = (caption for each in pictures for caption in each.captions if not says_style(each, caption))
    return list(dict.fromkeys(said))


def says_style(picture: Picture, caption: str) -> bool:
    """Whether a picture's caption names its style, or says how it looks."""
    return any(name in caption for name in _STYLE_WORDS.get(picture.style, ()))


_STYLE_WORDS = {each.style: (*each.style_names, *each.style_looks) for each in PICTURE_SETS}


def concepts_of(dataset: Dataset, cache: Path, evenness: float) -> Concepts:
    """The dataset's concepts with MiniLM's vectors of their wordings, which `cache` keeps."""
    shown: dict[str, list[Picture]] = {}
    for picture in dataset.pictures:
        shown.setdefault(picture.concept, []).append(picture)
    names = tuple(sorted(shown))
    texts = [wordings(shown[name]) for name in names]
    clusters = tuple(sorted({picture.cluster for picture in dataset.pictures}))
    first = torch.tensor([0, *map(len, texts)]).cumsum(0)
    vectors = cached_vectors(tuple(chain.from_iterable(texts)), cache).float()
    return Concepts(
        names=names,
        labels=tuple(shown[name][0].label for name in names),
        clusters=clusters,
        cluster=torch.tensor([clusters.index(shown[name][0].cluster) for name in names]),
        vectors=evened(vectors, evenness),
        first=first,
    )


def evened(vectors: Tensor, power: float) -> Tensor:
    """Unit vectors centred, and each principal direction divided by its relative deviation to `power`.

    Sentence vectors share a few strong directions that say little about which concept is meant (Mu & Viswanath 2018,
    "All-but-the-top"). Power 0 only centres.
    """
    centred = vectors - vectors.mean(0)
    _, deviations, directions = torch.linalg.svd(centred, full_matrices=False)
    scale = (deviations / deviations[0] + 0.02) ** -power
    return F.normalize(centred @ (directions.T * scale), dim=1)


def train(
    dataset: Path, run: Path, recipe_file: Path | None = None, *, resume: bool = False, show: Show | None = None
) -> None:
    """Train in the folder `run`; the judge is exported to `run/judge` as it goes and at the end."""
    recipe = settled(JudgeRecipe(), recipe_file, run, resume=resume)
    pictures = load_dataset(dataset)
    require_pictures(len(pictures.indices(judge_fold="train")), batch=recipe.batch)
    begin_run(run, recipe, pictures, resume=resume)
    concepts = concepts_of(pictures, run, recipe.evenness)
    torch.manual_seed(recipe.seed)
    model = new_judge(recipe, concepts, sorted(pictures.manifest.styles))
    task = JudgeTask(model, pictures, concepts, recipe)

    note(f"{len(task.pictures)} pictures, {sum(each.numel() for each in model.parameters()) / 1e6:.1f} M parameters")
    fit(
        run,
        task,
        LearningRate(recipe.rate, recipe.warmup, recipe.decay_at, recipe.steps),
        Averages(model, ()),
        steps=recipe.steps,
        batch=recipe.batch,
        show=show,
        resume=resume,
        optimizer=muon(model, OUTSIDE),
        extra=[Every(500, lambda _: save_judge(run / "judge", model, concepts))],
    )
    save_judge(run / "judge", model, concepts)


def new_judge(recipe: JudgeRecipe, concepts: Concepts, styles: Sequence[str]) -> Judge:
    """A network with a class for every cluster and style: a fresh one, or with the weights that `init` names."""
    config = JudgeConfig(
        architecture=recipe.architecture,
        side=recipe.sides[-1],
        width=recipe.width,
        shades=recipe.shades,
        text_dim=concepts.vectors.shape[1],
        clusters=len(concepts.clusters),
        styles=tuple(styles),
    )
    model = channels_last(Judge(config))
    if recipe.init:
        load_module(model, Path(recipe.init) / "model.safetensors")
    return model


def save_judge(folder: Path, model: Judge, concepts: Concepts) -> None:
    """Write what `fromnoise.evaluation` reads: the network, and the concepts that it tells apart."""
    save_module(folder, model, "Judge", file="model.safetensors")
    write_tensors(folder / "concepts.safetensors", {"vectors": concepts.means.half()})
    table = zip(concepts.names, concepts.labels, concepts.cluster.tolist(), strict=True)
    write_json(folder / "concepts.json", {name: [label, cluster] for name, label, cluster in table})
