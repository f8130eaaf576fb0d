"""A judge read from its folder, asked about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fromnoise.checkpoints.folder import load_module, read_json, read_tensors
from fromnoise.images.convert import to_tensor
from fromnoise.models.judge import Judge, JudgeConfig, Reading
from fromnoise.runtime.device import channels_last
from fromnoise.runtime.errors import FromnoiseError

TOP = 5
"""A concept counts as found when it is among so many first guesses."""


@dataclass(frozen=True)
class Verdicts:
    """What a judge says of N pictures that were to show a concept, each of shape (N,).

    `top1` and `top5` say whether the concept's cluster is the first guess, or among the first five; `style` whether
    the guessed style is the asked one (False where none was asked); `score` is the picture-text score, the cosine of
    the picture's embedding and the concept's vector, in [-1, 1].
    """

    top1: Tensor
    top5: Tensor
    style: Tensor
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

    @torch.inference_mode()
    def read(self, pictures: Sequence[Image.Image] | Tensor, *, batch: int = 64) -> Reading:
        """A reading of pictures of any one size, given as such or as (N, 3, H, W) in [-1, 1]."""
        parts = [self.model(self._shrunk(pictures[start : start + batch])) for start in range(0, len(pictures), batch)]
        return Reading(*(torch.cat([getattr(part, name) for part in parts]) for name in Reading.__dataclass_fields__))

    def verdicts(self, reading: Reading, concepts: Sequence[str], styles: Sequence[str | None]) -> Verdicts:
        """How well the pictures show what they were to show. KeyError for a concept that the judge never heard of."""
        asked = torch.tensor([self.index[concept] for concept in concepts])
        guesses = self.cluster_scores(reading).topk(TOP).indices
        found = guesses == self.cluster[asked][:, None]
        guessed = [self.model.config.styles[index] for index in reading.styles.argmax(1).tolist()]
        return Verdicts(
            top1=found[:, 0],
            top5=found.any(1),
            style=torch.tensor([one == other for one, other in zip(guessed, styles, strict=True)]),
            score=(reading.embedding * self.vectors[asked]).sum(1),
        )

    def guesses(self, reading: Reading) -> list[str]:
        """The label of the likeliest concept of each picture."""
        best = self.cluster_scores(reading).argmax(1)
        shown = {int(cluster): label for cluster, label in zip(self.cluster, self.labels, strict=True)}
        return [shown[int(cluster)] for cluster in best]

    def cluster_scores(self, reading: Reading) -> Tensor:
        """How likely each cluster of near-identical concepts is, as logits (N, clusters)."""
        return reading.clusters

    def _shrunk(self, pictures: Sequence[Image.Image] | Tensor) -> Tensor:
        tensor = pictures if isinstance(pictures, Tensor) else to_tensor(pictures)
        return self.model.shrink(tensor).contiguous(memory_format=torch.channels_last)


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
