"""Latents of varied pictures, with what is said of them, for a denoiser to learn beside the pictures as they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.data import Dataset
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.runtime.device import mixed_precision
from fromnoise.runtime.seeds import generator
from fromnoise.training.autoencoder import to_model_range
from fromnoise.training.claims import kept
from fromnoise.training.variety import Varied, vary

EACH = 4
"""Variants of a picture."""


@dataclass(frozen=True)
class Variants:
    """Of each of N pictures: `latents` (N, EACH, C, h, w) float16, and what a caption adds, `said[n][which]`."""

    latents: Tensor
    said: list[list[str]]

    def pick(self, picture: int, chance: float) -> tuple[Tensor, str]:
        """The variant of a picture that `chance` in [0, 1) picks: its latents and what is said of it."""
        which = int(chance * EACH)
        return self.latents[picture, which], self.said[picture][which]


@torch.inference_mode()
def make_variants(autoencoder: Autoencoder, dataset: Dataset, rows: list[int]) -> Variants:
    """Variants of the pictures at `rows`, always the same ones."""
    latents, said = [], []
    for row in rows:
        pixels = to_model_range(torch.from_numpy(dataset.all_pixels[[row]]))[0]
        some = [vary(pixels, generator("variants", row, which)) for which in range(EACH)]
        latents.append(_encoded(autoencoder, some))
        said.append([each.said for each in some])
    return Variants(torch.stack(latents), said)


def _encoded(autoencoder: Autoencoder, some: list[Varied]) -> Tensor:
    pictures = torch.stack([each.picture for each in some]).contiguous(memory_format=torch.channels_last)
    with mixed_precision():
        return autoencoder.encode(pictures).half()


def variants_of(autoencoder: Autoencoder, dataset: Dataset, rows: list[int], cache: Path) -> Variants:
    """`make_variants`, kept in `cache` between runs of the same pictures and autoencoder."""

    def make() -> tuple[Tensor, list[list[str]]]:
        made = make_variants(autoencoder, dataset, rows)
        return made.latents.clone(), made.said

    return Variants(*kept(cache, encoding(autoencoder, dataset, rows), make))


def encoding(autoencoder: Autoencoder, dataset: Dataset, rows: list[int]) -> dict[str, str]:
    """What latents of the pictures at `rows` are made of: the pictures and their order, and the autoencoder."""
    shown = "".join(f"{row} {dataset.pictures[row].sha256}\n" for row in rows)
    weights = hashlib.sha256(json.dumps(autoencoder.config.to_json(), sort_keys=True).encode())
    for name, each in autoencoder.state_dict().items():
        weights.update(name.encode() + each.contiguous().numpy().tobytes())
    return {"pictures": hashlib.sha256(shown.encode()).hexdigest(), "autoencoder": weights.hexdigest()}
