"""The guidance doctor: is a drawing guided too weakly or too strongly? It looks at the predicted picture as it goes.

Too weak, and a prompt gives any picture of anything; too strong, and pictures are flat, loud and all the same. The
doctor reads nothing but the Steps of a drawing (and the finished pixels, where given), so it works for every sampler
and every guidance. `RANGES` says what is healthy: it was measured on the embedded model, whose latents have about unit
variance as Stable Diffusion's have, and is measured anew by `benchmarks/calibrate_doctor.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fromnoise.diffusion.samplers import Step
from fromnoise.request import RANGES as REQUEST_RANGES

Verdict = Literal["too weak", "fine", "too strong"]


class Range(NamedTuple):
    """A figure below `weak` speaks for too little guidance, one above `strong` for too much."""

    weak: float
    strong: float

    def position(self, value: Tensor) -> Tensor:
        """0 at `weak`, 1 at `strong`, even in the value's logarithm."""
        return (value / self.weak).log() / math.log(self.strong / self.weak)


RANGES: Mapping[str, Range] = {
    "norm": Range(1.01, 1.35),
    "opening": Range(0.96, 3.01),
    "wander": Range(2.16, 4.02),
}
"""The figures that decide, as calibrated on the embedded model (docs/guidance.md has the table)."""

GROWTH = 1.42
"""How the guidance scale's logarithm grows with the position, on the embedded model."""

HEALTHY = 0.44
"""The position that advice aims at: that of guidance 4 on the embedded model."""

HIGHEST = REQUEST_RANGES["guidance"][1]
"""The highest scale that a request may ask for."""

FROM_NOISE = 5.0
"""A drawing that starts below this sigma starts from a picture, so that its opening says nothing about guidance."""

CLIPPED = 1 + 2 / 255
"""A pixel value beyond this is clipped visibly."""


ADVICE: Mapping[Verdict, tuple[str, ...]] = {
    "too weak": ("a prompt of fewer, plainer words is heard better", "in image to image, more strength"),
    "too strong": ("or keep it and soften it: rescale 0.7", "or guide only in the middle: interval 0.2 to 0.8"),
}
"""What else to try, the most effective first; docs/guidance.md has what each did."""


class Glance(NamedTuple):
    """The predicted picture at one step, a value for each picture, (B,): see `Figures` for `norm`."""

    sigma: float
    norm: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class Figures:
    """What a drawing looked like to the doctor: means over its pictures.

    - `norm`: root mean square of the latents predicted last; about 1 for a model's own pictures.
    - `deviation`: their standard deviation.
    - `opening`: the norm predicted first, as a share of the last. Without guidance the first prediction is
      a mean of many pictures and fainter than any; guidance makes it louder.
    - `wander`: how far the prediction travelled, as a multiple of the straight way from the first to the last.
    - `agreement`: mean cosine of the finished latents of two seeds, from -1 to 1; None for a single picture. High for
      too much guidance, but also for a simple subject.
    - `saturation`: mean of a pixel's largest minus its smallest channel, 0 to 1; `clipped`: the share of values
      beyond black and white. None without pixels.
    """

    norm: float
    deviation: float
    opening: float
    wander: float
    agreement: float | None = None
    saturation: float | None = None
    clipped: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The verdict, where it comes from and what to change.

    `position` is the mean over the pictures and the figures that decide: below 0 is too weak, above 1 too strong;
    `positions` has each deciding figure's own, `glances` the predicted picture step by step.
    """

    verdict: Verdict
    position: float
    positions: Mapping[str, float]
    figures: Figures
    glances: tuple[Glance, ...]
    advice: tuple[str, ...]

    def __str__(self) -> str:
        """The whole diagnosis as text, a line a figure."""
        lines = [f"guidance: {self.verdict} (position {self.position:.2f}, healthy from 0 to 1)"]
        for name, position in self.positions.items():
            low, high = RANGES[name]
            value = getattr(self.figures, name)
            lines.append(f"  {name} {value:.2f} (healthy {low:.2f} to {high:.2f}, position {position:.2f})")
        others = {name: value for name, value in asdict(self.figures).items() if name not in RANGES}
        lines.append("  " + ", ".join(f"{name} {value:.2f}" for name, value in others.items() if value is not None))
        return "\n".join([*lines, *(f"  {each}" for each in self.advice)])


def glance(step: Step) -> Glance:
    """The predicted picture of one step."""
    denoised = step.denoised.flatten(1).float()
    return Glance(step.sigma, _norm(denoised), denoised.std(1))


def diagnose(steps: Sequence[Step], *, pixels: Tensor | None = None, guidance: float | None = None) -> Diagnosis:
    """How the drawing whose Steps these are was guided; all of its steps, in order, at least one.

    `pixels` (B, 3, H, W), about [-1, 1] and not clamped, is what the autoencoder makes of the last ones. `guidance` is
    the scale that was used, for the advice; not that of CFG++, which is another kind of scale.
    """
    glances = tuple(glance(step) for step in steps)
    values = _values(steps, glances)
    positions = {name: float(RANGES[name].position(values[name]).mean()) for name in _deciding(steps)}
    position = sum(positions.values()) / len(positions)
    figures = Figures(
        **{name: float(value.mean()) for name, value in values.items()},
        agreement=_agreement(steps[-1].denoised),
        **({} if pixels is None else {"saturation": _saturation(pixels), "clipped": _clipped(pixels)}),
    )
    verdict: Verdict = "too weak" if position < 0 else "too strong" if position > 1 else "fine"
    return Diagnosis(verdict, position, positions, figures, glances, _advice(verdict, position, len(steps), guidance))


def suggested(guidance: float, position: float) -> float | None:
    """The scale to try instead of `guidance`, to the next half; None where there is none in the right direction."""
    # Below about 1.5 the figures hardly change with the scale, so there the way up starts from it.
    start = max(guidance, 1.5) if position < 0 else guidance
    growth = math.exp(min(GROWTH * (HEALTHY - position), math.log(HIGHEST)))
    scale = max(1.0, round(2 * min(start * growth, HIGHEST)) / 2)
    return scale if (scale > guidance) == (position < 0) and scale != guidance else None


def _values(steps: Sequence[Step], glances: Sequence[Glance]) -> dict[str, Tensor]:
    """The figures of the latents, (B,) each."""
    last = glances[-1]
    opening = glances[0].norm / last.norm.clamp(min=1e-6)
    return {"norm": last.norm, "deviation": last.deviation, "opening": opening, "wander": _wander(steps)}


def _wander(steps: Sequence[Step]) -> Tensor:
    predicted = torch.stack([step.denoised.flatten(1).float() for step in steps])  # (steps, B, N)
    travelled = predicted.diff(dim=0).norm(dim=2).sum(0)
    straight = (predicted[-1] - predicted[0]).norm(dim=1)
    return torch.where(straight > 0, travelled / straight.clamp(min=1e-12), 1.0)


def _deciding(steps: Sequence[Step]) -> list[str]:
    """The figures that mean something for this drawing."""
    # Fresh noise and guidance with momentum make the prediction wander however strong the guidance is.
    from_noise, steady = steps[0].sigma >= FROM_NOISE, steps[-1].noise_state is None and not steps[-1].guidance
    means = {"norm": True, "opening": from_noise and len(steps) > 1, "wander": from_noise and steady and len(steps) > 4}
    return [name for name in RANGES if means[name]]


def _advice(verdict: Verdict, position: float, steps: int, guidance: float | None) -> tuple[str, ...]:
    if verdict == "fine":
        return ()
    scale = None if guidance is None else suggested(guidance, position)
    said = [] if scale is None else [f"try guidance {scale:g} instead of {guidance:g}"]
    return (*said, *ADVICE[verdict])


def _agreement(latents: Tensor) -> float | None:
    if len(latents) < 2:
        return None
    flat = latents.flatten(1).float()
    pairs = [torch.cosine_similarity(one, two, dim=0) for one, two in combinations(flat, 2)]
    return float(torch.stack(pairs).mean())


def _saturation(pixels: Tensor) -> float:
    shown = (pixels.float() / 2 + 0.5).clamp(0, 1)
    return float((shown.amax(1) - shown.amin(1)).mean())


def _clipped(pixels: Tensor) -> float:
    return float((pixels.float().abs() > CLIPPED).float().mean())


def _norm(flat: Tensor) -> Tensor:
    return flat.square().mean(1).sqrt()
