"""Token merging for self-attention (ToMe for SD: Bolya & Hoffman 2023, arXiv 2303.17604).

Attention's cost grows with the square of its tokens, and many tokens of a picture say nearly the same. Before
self-attention the most similar ones become one, and after it each gets the answer of what it was merged into.
Shapes: B batch, N tokens of a map of h x w, M tokens after merging, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 2
"""One token in each cell of so many by so many stays, and the three others may merge into a stay (section 4.2)."""


@dataclass(frozen=True)
class Merging:
    """Which of M merged tokens each of N tokens belongs to: `owner` (B, N) int64, every one of M owning some."""

    owner: Tensor
    count: int

    def merge(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, M, C): the mean of what each merged token owns."""
        batch, _, channels = x.shape
        rows = (self.owner + self.count * torch.arange(batch, device=x.device)[:, None]).flatten()
        sums = x.new_zeros(batch * self.count, channels, dtype=torch.float32)
        sums.index_add_(0, rows, x.flatten(0, 1).float())
        owned = torch.zeros_like(sums[:, :1]).index_add_(0, rows, torch.ones_like(rows[:, None], dtype=sums.dtype))
        return (sums / owned).to(x.dtype).unflatten(0, (batch, self.count))

    def unmerge(self, x: Tensor) -> Tensor:
        """(B, M, C) to (B, N, C): each token gets its owner's."""
        return x.gather(1, self.owner[:, :, None].expand(-1, -1, x.shape[2]))


def merging(x: Tensor, size: tuple[int, int], share: float) -> Merging | None:
    """How to merge a `share` of a map's tokens x (B, h w, C) away, `size` being (h, w); None where nothing is merged.

    The tokens most like the stay that is most like them go first, by the cosine of their channels. The stay of a cell
    is its first token (the reference draws it by chance), so that equal requests give equal pictures.
    """
    stays, others = _partition(size, x.device)
    removed = min(int(x.shape[1] * share), len(others))
    if removed == 0:
        return None
    similarity, nearest = _similarities(x, stays, others).max(2)
    order = similarity.argsort(dim=1, descending=True, stable=True)
    target = torch.empty_like(nearest).scatter_(1, order[:, :removed], nearest.gather(1, order[:, :removed]))
    alone = torch.arange(len(stays), x.shape[1] - removed, device=x.device).expand(len(x), -1)
    target.scatter_(1, order[:, removed:], alone)
    owner = torch.empty(x.shape[:2], dtype=torch.int64, device=x.device)
    owner[:, stays] = torch.arange(len(stays), device=x.device)
    owner[:, others] = target
    return Merging(owner, x.shape[1] - removed)


def _partition(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Places of the tokens that stay, and of all others."""
    places = torch.arange(size[0] * size[1], device=device).unflatten(0, size)
    stays = places[::CELL, ::CELL].flatten()
    others = torch.cat([places[::CELL, 1::CELL].flatten(), places[1::CELL].flatten()])
    return stays, others


def _similarities(x: Tensor, stays: Tensor, others: Tensor) -> Tensor:
    """Cosines of every other token with every stay, (B, others, stays)."""
    directions = F.normalize(x, dim=2)
    return directions[:, others] @ directions[:, stays].transpose(1, 2)
