"""Hold a text encoder to what it said before, so that a denoiser that reads it goes on as it was.

What stands behind the end token is most of what a denoiser reads. There, words that no caption holds are drawn to what
captions of the same concept say: their states lie far from any caption's otherwise, and the denoiser draws anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.models.clip_text import ClipText

SHARPNESS = 0.2
"""The squared distance that makes a concept count e times less; the nearest other is 0.7 away, a random one 2."""


@dataclass(frozen=True)
class Anchor:
    """The encoder from before, frozen; the mean state behind the end token of each concept's captions, (K, C)."""

    before: ClipText
    means: Tensor

    @torch.no_grad()
    def states(self, tokens: Tensor) -> Tensor:
        """What was said of ids (B, M), (B, M, C)."""
        return self.before(tokens)

    def drift(self, states: Tensor, before: Tensor) -> Tensor:
        """How far states (B, M, C) are from those before, squared, relative to how captions differ from each other."""
        return (states - before).square().mean() / before.var(0).mean()

    def distances(self, padding: Tensor) -> Tensor:
        """How far mean padding states (B, C) are from each concept's, (B, K), squared; relative as `drift` is."""
        lengths = padding.square().sum(1, keepdim=True) + self.means.square().sum(1)
        return (lengths - 2 * padding @ self.means.T).clamp(0) / self.means.var(0).sum()

    def vagueness(self, padding: Tensor, meant: Tensor) -> Tensor:
        """Cross-entropy of whose padding states (B, C) are near from what is meant (B, K), and how near the nearest is.

        Halfway between two concepts, where the mean of what they say lies, a denoiser draws neither.
        """
        if not len(padding):
            return padding.sum()  # nought: the mean of nothing would end the run
        apart = self.distances(padding)
        chosen = (-apart / SHARPNESS).log_softmax(1)
        return -(meant * chosen).sum(1).mean() + apart.amin(1).mean()


def padding_means(states: Tensor, tokens: Tensor, end: int) -> Tensor:
    """The mean (B, C) of states (B, M, C) behind the first end token of ids (B, M), of the last where there is none."""
    behind = (tokens == end).cumsum(1) > 1
    behind[:, -1] = True
    return (states * behind[..., None]).sum(1) / behind.sum(1, keepdim=True)


@torch.no_grad()
def anchor(before: ClipText, captions: list[Tensor]) -> Anchor:
    """The anchor of an encoder and of each concept's captions, as ids (N, M)."""
    before = before.eval().requires_grad_(False)
    end = before.config.eos_token_id
    means = [padding_means(before(each), each, end).mean(0) for each in captions]
    return Anchor(before, torch.stack(means))
