"""A judge read from its folder, asked about pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fromnoise.checkpoints.folder import load_module, read_json, read_tensors
from fromnoise.images.convert import to_tensor
from fromnoise.models.judge import Judge, JudgeConfig, Reading, merged
from fromnoise.runtime.device import channels_last
from fromnoise.runtime.errors import FromnoiseError

TOP = 5
"""A concept counts as found when it is among so many first guesses."""

SHARPNESS = 25.0
"""What cosines are multiplied by to make logits of them, as in training."""

LOOK_ALIKES: Mapping[str, str] = {"fluent": "fluent-3d"}
"""Styles that count as one: the same drawings, modelled in 3D and traced with gradients from those models."""

MARGIN, CUT = 0.08, 0.0625
"""Shares of a side that a judge's second and third look add around a picture and take away from it."""


Pictures = Sequence[Image.Image] | Tensor


@dataclass(frozen=True)
class Verdicts:
    """What a judge says of N pictures that were to show a concept, each of shape (N,).

    `top1` and `top5` say whether the concept's cluster is the first guess, or among the first five; `style` whether
    the guessed style is the asked one (False where none was asked), look-alikes counting as one, and `own_style`
    whether it is among all of them; `score` is the picture-text score, the cosine of the picture's embedding and the
    concept's vector, in [-1, 1].
    """

    top1: Tensor
    top5: Tensor
    style: Tensor
    own_style: Tensor
    score: Tensor


@dataclass(frozen=True)
class Trained:
    """A judge and the concepts it tells apart: their names, labels, clusters (C,) and unit vectors (C, text_dim)."""

    model: Judge
    names: tuple[str, ...]
    labels: tuple[str, ...]
    cluster: Tensor
    vectors: Tensor

    @cached_property
    def index(self) -> dict[str, int]:
        """Where a concept stands, by its code points."""
        return {name: index for index, name in enumerate(self.names)}

    def read(self, pictures: Pictures, *, batch: int = 64) -> Reading:
        """A reading of pictures of any one size, given as such or as (N, 3, H, W) in [-1, 1]."""
        return self._in_batches(pictures, batch, self.model)

    def study(self, pictures: Pictures, *, batch: int = 64) -> Reading:
        """A reading that looks six times: at the whole, from farther and from nearer, and at the mirror images.

        Features are the plain look's; embeddings and logits are the means of all looks.
        """
        return self._in_batches(pictures, batch, lambda seen: together([self.model(each) for each in looks(seen)]))

    @torch.inference_mode()
    def _in_batches(self, pictures: Pictures, batch: int, reader: Callable[[Tensor], Reading]) -> Reading:
        parts = [reader(self._shrunk(pictures[start : start + batch])) for start in range(0, len(pictures), batch)]
        return Reading(*(torch.cat([getattr(part, name) for part in parts]) for name in Reading.__dataclass_fields__))

    def verdicts(self, reading: Reading, concepts: Sequence[str], styles: Sequence[str | None]) -> Verdicts:
        """How well the pictures show what they were to show. KeyError for a concept that the judge never heard of."""
        asked = torch.tensor([self.index[concept] for concept in concepts])
        guesses = self.cluster_scores(reading).topk(TOP).indices
        found = guesses == self.cluster[asked][:, None]
        return Verdicts(
            top1=found[:, 0],
            top5=found.any(1),
            style=_equal(self.styles_seen(reading), [LOOK_ALIKES.get(each or "", each) for each in styles]),
            own_style=_equal([self.model.config.styles[each] for each in reading.styles.argmax(1).tolist()], styles),
            score=(reading.embedding * self.vectors[asked]).sum(1),
        )

    def styles_seen(self, reading: Reading) -> list[str]:
        """The likeliest style of each picture, of look-alikes the one that stands for them."""
        stands = [LOOK_ALIKES.get(each, each) for each in self.model.config.styles]
        names = list(dict.fromkeys(stands))
        members = F.one_hot(torch.tensor([names.index(each) for each in stands])).float()
        return [names[index] for index in merged(reading.styles, members).argmax(1).tolist()]

    def guesses(self, reading: Reading) -> list[str]:
        """The label of the likeliest concept of each picture."""
        best = self.cluster_scores(reading).argmax(1)
        shown = {int(cluster): label for cluster, label in zip(self.cluster, self.labels, strict=True)}
        return [shown[int(cluster)] for cluster in best]

    def cluster_scores(self, reading: Reading) -> Tensor:
        """How likely each cluster of near-identical concepts is, as logits (N, clusters).

        What the classifier says and what the texts say, in equal parts.
        """
        members = F.one_hot(self.cluster, reading.clusters.shape[1]).float()
        said = merged(SHARPNESS * reading.embedding @ self.vectors.T, members)
        return reading.clusters.log_softmax(1) + said.log_softmax(1)

    def _shrunk(self, pictures: Pictures) -> Tensor:
        tensor = pictures if isinstance(pictures, Tensor) else to_tensor(pictures)
        return self.model.shrink(tensor).contiguous(memory_format=torch.channels_last)


def _equal(guessed: Sequence[str], asked: Sequence[str | None]) -> Tensor:
    return torch.tensor([one == other for one, other in zip(guessed, asked, strict=True)])


def looks(pictures: Tensor) -> list[Tensor]:
    """Six looks at square pictures (N, 3, s, s): as they are, smaller and larger, each also mirrored."""
    side = pictures.shape[3]
    margin, cut = round(side * MARGIN), round(side * CUT)
    farther = F.pad(pictures, (margin,) * 4, mode="replicate")
    sizes = [pictures, *(_resized(each, side) for each in (farther, pictures[:, :, cut:-cut, cut:-cut]))]
    return [each for size in sizes for each in (size, size.flip(3))]


def _resized(pictures: Tensor, side: int) -> Tensor:
    return F.interpolate(pictures, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def together(readings: Sequence[Reading]) -> Reading:
    """Several readings of the same pictures as one; the first one's features."""
    embedding, clusters, styles = (
        torch.stack([getattr(each, name) for each in readings]) for name in ("embedding", "clusters", "styles")
    )
    return Reading(
        features=readings[0].features,
        embedding=F.normalize(embedding.mean(0), dim=1),
        clusters=clusters.log_softmax(2).mean(0),
        styles=styles.log_softmax(2).mean(0),
    )


def load_judge(folder: Path) -> Trained:
    """The judge that `fromnoise train judge` wrote; FromnoiseError when it is missing or damaged."""
    if not (folder / "config.json").is_file():
        raise FromnoiseError(
            f"no judge in {folder}; fromnoise train judge makes runs/judge/judge, and --judge names it"
        )
    with torch.device("meta"):
        model = Judge(JudgeConfig.from_json(read_json(folder / "config.json")))
    load_module(model, folder / "model.safetensors")
    table = read_json(folder / "concepts.json")
    return Trained(
        model=channels_last(model.requires_grad_(False)),
        names=tuple(table),
        labels=tuple(label for label, _ in table.values()),
        cluster=torch.tensor([cluster for _, cluster in table.values()]),
        vectors=read_tensors(folder / "concepts.safetensors")["vectors"].float(),
    )
