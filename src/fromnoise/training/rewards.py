"""What drawings are worth: the exact colours of their style, and what a judge says of their style and concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.data import Dataset
from fromnoise.models.judge import Reading, merged
from fromnoise.training.autoencoder import to_model_range
from fromnoise.training.judging import LOOK_ALIKES, SHARPNESS, Trained
from fromnoise.training.order import Draw
from fromnoise.training.views import FAITHFUL, views

COLOURS = 160
"""So many colours make a style's palette."""

EXACT = 4.0
"""A style has a palette when the even parts of its pictures are within so many levels of it on average.

Of the shipped model's they are by 0.4 to 2.2; noto's, which are shaded, by 5.0, and Fluent's gradients by 11 and 14.
"""

EVEN, PAPER = 28.0, 245.0
"""A pixel is of an even part when its neighbours are within so many levels, and of the paper when it is lighter."""

READ, FARTHEST = 2500, 30.0
"""About so many pixels of a picture are held beside the palette, and farther than so many levels counts no more."""

PICTURES = 600
"""So many of a style's pictures say which colours are common."""

LOOKS = 2
"""How often the judge looks at each drawing."""


@dataclass(frozen=True)
class Asked:
    """What a drawing was asked for: the text, the code points of its concept, and its style where the text names it."""

    text: str
    concept: str
    style: str | None


@dataclass(frozen=True)
class Worth:
    """How much each shortcoming counts: being ten levels off the palette, and the judge's two cross-entropies."""

    palette: float
    style: float
    concept: float


class Reward:
    """Says how far drawings fall short of what was asked for."""

    def __init__(self, judge: Trained, palettes: Mapping[str, Tensor], worth: Worth) -> None:
        self.judge, self.palettes, self.worth = judge, palettes, worth
        stands = [LOOK_ALIKES.get(each, each) for each in judge.model.config.styles]
        self.styles = list(dict.fromkeys(stands))
        self.style_members = F.one_hot(torch.tensor([self.styles.index(each) for each in stands])).float()
        self.members = F.one_hot(judge.cluster, judge.model.config.clusters).float()

    def shortfall(self, pictures: Tensor, asked: Sequence[Asked], draws: Sequence[Draw]) -> Tensor:
        """What drawings (B, 3, H, W) in [-1, 1] lack, (B,) with gradients; the draws decide how the judge looks."""
        colours = [self._colours(picture, each.style) for picture, each in zip(pictures, asked, strict=True)]
        small = self.judge.model.shrink(pictures)
        mirrored = torch.ones(len(pictures), dtype=torch.bool)
        looks = [[Draw(each.seed, each.epoch, each.sample, look) for each in draws] for look in range(LOOKS)]
        seen = [views(small, each, mirrored, small.shape[3], FAITHFUL) for each in looks]
        said = [self._judged(self.judge.model(each), asked) for each in seen]
        return self.worth.palette / 10 * torch.stack(colours) + torch.stack(said).mean(0)

    def _colours(self, picture: Tensor, style: str | None) -> Tensor:
        palette = self.palettes.get(style or "")
        return picture.new_zeros(()) if palette is None else off_palette(picture, palette)

    def _judged(self, reading: Reading, asked: Sequence[Asked]) -> Tensor:
        named = [None if each.style is None else LOOK_ALIKES.get(each.style, each.style) for each in asked]
        style = torch.tensor([-100 if each is None else self.styles.index(each) for each in named])
        cluster = self.judge.cluster[torch.tensor([self.judge.index[each.concept] for each in asked])]
        texts = merged(SHARPNESS * reading.embedding @ self.judge.vectors.T, self.members)
        concept = _surprise(texts, cluster, 0.1) + 0.5 * _surprise(reading.clusters, cluster, 0.1)
        looks = _surprise(merged(reading.styles, self.style_members), style, 0.05)
        return self.worth.style * looks + self.worth.concept * concept


def _surprise(logits: Tensor, right: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of each, (B,); 0 for those whose answer is -100."""
    return F.cross_entropy(logits, right, label_smoothing=smoothing, reduction="none")


def off_palette(picture: Tensor, palette: Tensor) -> Tensor:
    """How far the even parts of a picture (3, H, W) in [-1, 1] lie from the nearest colours of a palette (N, 3).

    The mean over pixels and channels in levels of 255, a scalar with gradients; 0 for a picture without such parts.
    """
    levels = (picture.float() + 1) * 127.5
    pixels = levels[:, even_parts(levels.detach())].T
    if not len(pixels):
        return levels.sum() * 0
    pixels = pixels[:: -(-len(pixels) // READ)]
    nearest = palette[torch.cdist(pixels.detach(), palette, p=1).argmin(1)]
    return (pixels - nearest).abs().mean(1).clamp(max=FARTHEST).mean()


def even_parts(levels: Tensor) -> Tensor:
    """Where a picture (3, H, W) in levels of 255 is neither an edge nor paper, (H, W)."""
    darkest, lightest = -F.max_pool2d(-levels, 3, 1, 1), F.max_pool2d(levels, 3, 1, 1)
    return ((lightest - darkest).amax(0) < EVEN) & (levels.amin(0) < PAPER)


def palettes_of(dataset: Dataset) -> dict[str, Tensor]:
    """The commonest colours (COLOURS, 3), in levels of 255, of each style whose training pictures keep to few."""
    rows: dict[str, list[int]] = {}
    for row in dataset.indices(split="train"):
        rows.setdefault(dataset.pictures[row].style, []).append(row)
    found = {style: commonest(dataset.all_pixels[some[:PICTURES]]) for style, some in sorted(rows.items())}
    return {style: each for style, each in found.items() if _keeps_to(dataset, rows[style], each)}


def commonest(pixels: np.ndarray) -> Tensor:
    """The colours that most pixels of pictures (N, H, W, 3) uint8 have, (at most COLOURS, 3) float32."""
    red, green, blue = (torch.from_numpy(pixels[..., channel].astype(np.int32)) for channel in range(3))
    counts = (red << 16 | green << 8 | blue).flatten().bincount(minlength=1 << 24)
    best = counts.topk(min(COLOURS, int((counts > 0).sum()))).indices
    return torch.stack([best >> 16, best >> 8 & 255, best & 255], 1).float()


def _keeps_to(dataset: Dataset, rows: Sequence[int], palette: Tensor) -> bool:
    pictures = to_model_range(torch.from_numpy(dataset.all_pixels[rows[::20]]))
    return float(torch.stack([off_palette(each, palette) for each in pictures]).mean()) <= EXACT
