"""What is done with the network's answers: each stage takes the guided picture so far and gives a better one.

Stages are pure and hold no state. All statistics are per picture. Each says in which space it works: on the predicted
picture, or on the network's own output (epsilon or v). Where a stage is a weighted sum whose weights add up to one,
both are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import scalings
from fromnoise.diffusion.guidance.answers import Answers, Role


class Stage(Protocol):
    """One step of guidance. `needs` says which predictions it reads beside the conditional one."""

    @property
    def needs(self) -> tuple[Role, ...]: ...

    def __call__(self, answers: Answers, guided: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance: go `scale` times as far from the unconditional picture as the prompt does.

    u + scale (c - u) (Ho & Salimans 2022, eq. 6). At 1 the prompt alone speaks, at 0 it is not heard. The same in
    both spaces.
    """

    scale: float
    needs: tuple[Role, ...] = ("unconditional",)

    def __call__(self, answers: Answers, guided: Tensor) -> Tensor:
        assert answers.unconditional is not None
        return answers.unconditional + self.scale * answers.difference


@dataclass(frozen=True)
class Projected:
    """Adaptive projected guidance, APG (Sadat et al. 2024, section 4 and algorithm 1), on the predicted picture.

    c + (scale - 1) (d_orthogonal + parallel d_parallel), where d is c - u with momentum (`Guided` keeps it), its norm
    at most `limit` (None: any), split into its part along c, which saturates, and the rest. The paper's letters are
    eta for `parallel` and r for `limit`. `limit` is the norm over all of a picture's latents, so it means more
    in larger ones.
    """

    scale: float
    parallel: float = 0.0
    limit: float | None = None
    needs: tuple[Role, ...] = ("unconditional",)

    def __call__(self, answers: Answers, guided: Tensor) -> Tensor:
        difference = answers.difference if answers.momentum is None else answers.momentum
        if self.limit is not None:
            difference = difference * (self.limit / _norm(difference)).clamp(max=1.0)
        along = project(difference, answers.conditional)
        return answers.conditional + (self.scale - 1) * (difference - along + self.parallel * along)


@dataclass(frozen=True)
class Perturbed:
    """Perturbed-attention guidance, PAG: away from the picture that damaged self-attention gives.

    Adds scale (c - p) to what is guided so far (Ahn et al. 2024, section 4). The same in both spaces.
    """

    scale: float
    needs: tuple[Role, ...] = ("perturbed",)

    def __call__(self, answers: Answers, guided: Tensor) -> Tensor:
        assert answers.perturbed is not None, "perturbed-attention guidance needs the perturbed prediction"
        return guided + self.scale * (answers.conditional - answers.perturbed)


@dataclass(frozen=True)
class Rescale:
    """Give the guided output the conditional output's standard deviation (Lin et al. 2023, section 3.4).

    `amount` in [0, 1] mixes the rescaled with the guided output (the paper's phi; it uses 0.7). Works on the network's
    output, so it needs to know the `prediction` ("epsilon" or "v_prediction").
    """

    amount: float
    prediction: str
    needs: tuple[Role, ...] = ()

    def __call__(self, answers: Answers, guided: Tensor) -> Tensor:
        scale = scalings(self.prediction, answers.sigma)
        kept = scale.skip * answers.x
        output, conditional = ((picture - kept) / scale.out for picture in (guided, answers.conditional))
        return kept + scale.out * rescale(output, conditional, self.amount)


@dataclass(frozen=True)
class DynamicThreshold:
    """Bring the guided picture's range down to the conditional one's, and clip what sticks out.

    Imagen's dynamic thresholding (Saharia et al. 2022, section 2.3) on latents, whose range isn't [-1, 1]: the sd-
    dynamic-thresholding extension's way. In every channel of every picture, values are counted from the channel's
    mean. With s_g and s_c the `percentile` (in (0, 1]) of the guided and the conditional picture's absolute values,
    and s = max(s_g, s_c), the guided values are clamped to [-s, s] and multiplied by s_c / s; the guided mean stays.
    Nothing is ever stretched. With s_c = 1 and mean 0 this is Imagen's formula. (The extension takes the conditional's
    maximum for s_c, and can mimic another scale.) Works on the predicted picture.
    """

    percentile: float
    needs: tuple[Role, ...] = ()

    def __call__(self, answers: Answers, guided: Tensor) -> Tensor:
        return dynamic_threshold(guided, answers.conditional, self.percentile)


def rescale(guided: Tensor, conditional: Tensor, amount: float) -> Tensor:
    """`guided` (B, C, h, w), by `amount` on the way to the standard deviation of `conditional`."""
    ratio = conditional.flatten(1).std(1) / guided.flatten(1).std(1)
    return guided * (amount * ratio + (1 - amount))[:, None, None, None]


def project(difference: Tensor, onto: Tensor) -> Tensor:
    """The part of `difference` (B, C, h, w) that is parallel to `onto`, picture by picture."""
    direction = onto / _norm(onto)
    return (difference * direction).sum((1, 2, 3), keepdim=True) * direction


def dynamic_threshold(guided: Tensor, conditional: Tensor, percentile: float) -> Tensor:
    """See `DynamicThreshold`; (B, C, h, w) to the same shape."""
    mean = guided.mean((2, 3), keepdim=True)
    wanted = _reach(conditional - conditional.mean((2, 3), keepdim=True), percentile)
    reach = torch.maximum(_reach(guided - mean, percentile), wanted).clamp(min=1e-12)  # a flat channel has none
    return mean + (guided - mean).clamp(-reach, reach) * (wanted / reach)


def _reach(centred: Tensor, percentile: float) -> Tensor:
    """The percentile of a channel's absolute values, (B, C, 1, 1)."""
    return centred.abs().flatten(2).float().quantile(percentile, dim=2)[:, :, None, None].to(centred)


def _norm(x: Tensor) -> Tensor:
    """Each picture's norm, (B, 1, 1, 1), never 0 so that it can divide."""
    return x.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
