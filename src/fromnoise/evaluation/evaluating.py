"""Draw, let judge B look, and compare with real pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fromnoise.evaluation.distances import fid, kid, nearest
from fromnoise.evaluation.drawing import Show, draw, rebuilt
from fromnoise.evaluation.judging import Trained, Verdicts, load_judge
from fromnoise.evaluation.prompts import HELD_OUT, TRAINED, Prompt, reworded, sample
from fromnoise.evaluation.reference import Ceiling, Reference, load_reference
from fromnoise.evaluation.report import Likeness, Limits, Recall, Report, Shares, sheet
from fromnoise.evaluation.statistics import Estimate, mean, ratio, wilson
from fromnoise.images.convert import to_tensor
from fromnoise.pipeline import load
from fromnoise.request import Request
from fromnoise.runtime.paths import JUDGE

TRAINED_PAIRS = 300
"""Trained pairs drawn when nobody says how many; of held-out pairs and reworded prompts, all."""

COPY = 0.95
"""A drawn picture is as near as a copy when so large a share of reconstructions is farther from its original."""


@dataclass(frozen=True)
class Drawn:
    """Pictures, what they were to show, what the judge says, and its features on the reference's axes."""

    prompts: Sequence[Prompt]
    pictures: Sequence[Image.Image]
    verdicts: Verdicts
    features: Tensor

    def of(self, kind: str) -> Tensor:
        """Which pictures are of a kind, (N,) bool."""
        return torch.tensor([each.kind == kind for each in self.prompts])


def evaluate(
    model: Path | None = None,
    *,
    pictures: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    judge: Path = JUDGE,
    show: Show | None = None,
) -> Report:
    """Draw what trained pairs, held-out pairs and reworded prompts ask for, and measure it, offline.

    `pictures` bounds how many of each kind are drawn; `steps` and `guidance` default to a Request's. `model` None is
    the embedded one, `judge` the folder that `prepare` filled. Raises UsageError when there is no such model.
    """
    started = time.monotonic()
    pipe, trained, reference = load(model), load_judge(judge), load_reference(judge)
    given = {"steps": steps, "guidance": guidance}
    settings = pipe.resolve(Request(seed=seed, **{name: value for name, value in given.items() if value is not None}))
    prompts = choose(reference, pictures, seed)
    images = draw(pipe, [each.text for each in prompts], settings, show=show)
    drawn = look(trained, reference, prompts, images)
    copies = torch.cat(list(rebuilt(pipe.autoencoder, reference.held_out)))
    copied = reference.project(trained.read(copies).features)
    return Report(
        model=pipe.name,
        model_hash=pipe.hash,
        settings=_settings(settings),
        shares=tuple(shares(drawn, kind, reference.ceiling) for kind in dict.fromkeys(each.kind for each in prompts)),
        ceiling=limits(reference.ceiling),
        likeness=likeness(drawn, reference, copied, psnr(copies, to_tensor(reference.held_out))),
        recall=recall(drawn, reference, copied),
        seconds=time.monotonic() - started,
        sheet=sheet(prompts, images),
    )


def choose(reference: Reference, count: int | None, seed: int) -> list[Prompt]:
    """The prompts of an evaluation, by chance and none twice.

    Trained pairs are those whose real picture the judge never saw, while there are enough: a drawing that comes near
    a picture the judge knows by heart would be recognised more easily than the ceiling allows.
    """
    count_trained = TRAINED_PAIRS if count is None else count
    trained = reference.asking(TRAINED, unseen=True)
    if count_trained > len(trained):
        trained = reference.asking(TRAINED)
    return [
        *sample(trained, count_trained, seed),
        *sample(reference.asking(HELD_OUT), count, seed),
        *sample(reworded(), count, seed),
    ]


def look(judge: Trained, reference: Reference, prompts: Sequence[Prompt], pictures: Sequence[Image.Image]) -> Drawn:
    """Let the judge read what was drawn."""
    reading = judge.read(pictures)
    verdicts = judge.verdicts(reading, [each.concept for each in prompts], [each.style for each in prompts])
    return Drawn(prompts, pictures, verdicts, reference.project(reading.features))


def shares(drawn: Drawn, kind: str, ceiling: Ceiling) -> Shares:
    """How often the judge found the asked concept and style in the pictures of a kind."""
    mine, verdicts, best = drawn.of(kind), drawn.verdicts, limits(ceiling)
    top1, top5, style = (_counted(each[mine]) for each in (verdicts.top1, verdicts.top5, verdicts.style))
    found = Shares(
        kind=kind,
        top1=top1,
        top5=top5,
        score=mean(verdicts.score[mine]),
        top1_of_ceiling=ratio(top1, best.top1),
        top5_of_ceiling=ratio(top5, best.top5),
    )
    styled = any(each.style for each in drawn.prompts if each.kind == kind)
    return replace(found, style=style, style_of_ceiling=ratio(style, best.style)) if styled else found


def limits(ceiling: Ceiling) -> Limits:
    """The ceiling as shares with intervals."""
    found = (wilson(each, ceiling.n) for each in (ceiling.top1, ceiling.top5, ceiling.style))
    return Limits(*found, score=ceiling.score)


def likeness(drawn: Drawn, reference: Reference, copied: Tensor, decibels: float) -> Likeness:
    """How like the clouds of drawn and real pictures are."""
    real, of_held_out = reference.of(HELD_OUT), drawn.features[drawn.of(HELD_OUT)]
    return Likeness(
        kid=kid(of_held_out, real) if len(of_held_out) > 1 else None,
        kid_floor=kid(copied, real),
        fid=fid(drawn.features[drawn.of(TRAINED)], reference.of(TRAINED)),
        psnr=decibels,
    )


def recall(drawn: Drawn, reference: Reference, copied: Tensor) -> Recall:
    """How near to what was trained on."""
    learnt, real = reference.of(TRAINED), reference.of(HELD_OUT)
    apart = (copied - real).norm(dim=1)
    of_trained = nearest(drawn.features[drawn.of(TRAINED)], learnt)
    of_held_out = nearest(drawn.features[drawn.of(HELD_OUT)], learnt)
    return Recall(
        reconstruction=float(apart.median()),
        real_held_out=float(nearest(real, learnt).median()),
        drawn_held_out=float(of_held_out.median()) if len(of_held_out) else None,
        drawn_trained=float(of_trained.median()) if len(of_trained) else None,
        copies=_counted(of_trained < apart.quantile(COPY)) if len(of_trained) else None,
    )


def psnr(rebuilt_pictures: Tensor, originals: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over [0, 1] of pictures (N, 3, H, W) in [-1, 1], the mean of the pictures'."""
    errors = (((rebuilt_pictures - originals) / 2) ** 2).flatten(1).mean(1)
    return float((-10 * errors.clamp(min=1e-10).log10()).mean())


def _counted(found: Tensor) -> Estimate:
    return wilson(int(found.sum()), len(found))


def _settings(settings: Request) -> dict[str, str | int | float | None]:
    """What matters for drawing these pictures again."""
    values = asdict(settings)
    return {name: values[name] for name in ("seed", "steps", "guidance", "sampler", "schedule", "size")}
