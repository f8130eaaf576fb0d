"""Draw, let judge B look, and compare with real pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.evaluation.distances import fid, kid_of_pairs, nearest
from fromnoise.evaluation.drawing import Show, draw, rebuilt
from fromnoise.evaluation.prompts import HELD_OUT, REBUILT, TRAINED, Prompt, reworded, sample
from fromnoise.evaluation.reference import Ceiling, Reference, load_reference
from fromnoise.evaluation.report import Likeness, Limits, Recall, Report, Shares, sheet
from fromnoise.evaluation.statistics import Estimate, mean, ratio, wilson
from fromnoise.images.convert import to_tensor
from fromnoise.pipeline import load
from fromnoise.request import Request
from fromnoise.runtime.log import warn
from fromnoise.runtime.paths import JUDGE
from fromnoise.runtime.seeds import generator
from fromnoise.training.judging import Pictures, Trained, Verdicts, load_judge

TRAINED_PAIRS = 300
"""Trained pairs drawn when nobody says how many; of held-out pairs and reworded prompts, all."""

COPY = 0.95
"""A drawn picture is as near as a copy when so large a share of reconstructions is farther from its original."""


@dataclass(frozen=True)
class Drawn:
    """What pictures were to show, what the judge says, and its features on the reference's axes."""

    prompts: Sequence[Prompt]
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
    fast: bool = False,
    judge: Path = JUDGE,
    show: Show | None = None,
) -> Report:
    """Draw what trained pairs, held-out pairs and reworded prompts ask for, and measure it, offline.

    `pictures` bounds how many of each kind are drawn; `steps`, `guidance` and `fast` are a Request's. `model` None is
    the embedded one, `judge` the folder that `prepare` filled. Raises UsageError when there is no such model.
    """
    started = time.monotonic()
    pipe, trained, reference = load(model), load_judge(judge), load_reference(judge)
    given = {"steps": steps, "guidance": guidance, "fast": fast}
    settings = pipe.resolve(Request(seed=seed, **{name: value for name, value in given.items() if value is not None}))
    prompts = choose(reference, pictures, seed)
    images = draw(pipe, [each.text for each in prompts], settings, show=show)
    drawn = look(trained, reference, prompts, images)
    copies = torch.cat(list(rebuilt(pipe.autoencoder, reference.held_out)))
    copied = look(trained, reference, [replace(each, kind=REBUILT) for each in reference.asking(HELD_OUT)], copies)
    return Report(
        model=pipe.name,
        model_hash=pipe.hash,
        settings=_settings(settings),
        dtype=pipe.format,
        threads=torch.get_num_threads(),
        shares=tuple(shares(drawn, kind, reference.ceiling) for kind in dict.fromkeys(each.kind for each in prompts)),
        rebuilt=shares(copied, REBUILT, reference.ceiling),
        ceiling=limits(reference.ceiling),
        likeness=likeness(drawn, reference, copied.features, psnr(copies, to_tensor(reference.held_out))),
        recall=recall(drawn, reference, copied.features),
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
    if count_trained > len(set(trained)):
        trained = reference.asking(TRAINED)
    return [
        *sample(trained, count_trained, seed),
        *sample(reference.asking(HELD_OUT), count, seed),
        *sample(_known(reworded(), reference), count, seed),
    ]


def _known(prompts: Sequence[Prompt], reference: Reference) -> list[Prompt]:
    """The prompts for concepts that the judge's real pictures show, and a warning about the others."""
    shown = {each.concept for each in reference.prompts}
    known = [each for each in prompts if each.concept in shown]
    if len(known) < len(prompts):
        warn(f"{len(prompts) - len(known)} reworded prompts are left out: the judge's dataset lacks what they ask for")
    return known


def look(judge: Trained, reference: Reference, prompts: Sequence[Prompt], pictures: Pictures) -> Drawn:
    """Let the judge study what was drawn."""
    reading = judge.study(pictures)
    verdicts = judge.verdicts(reading, [each.concept for each in prompts], [each.style for each in prompts])
    return Drawn(prompts, verdicts, reference.project(reading.features))


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
    counts = (ceiling.top1, ceiling.top5, ceiling.style, ceiling.own_style)
    return Limits(*(wilson(each, ceiling.n) for each in counts), score=ceiling.score)


def likeness(drawn: Drawn, reference: Reference, copied: Tensor, decibels: float) -> Likeness:
    """How like the clouds of drawn and real pictures are."""
    real = reference.of(HELD_OUT)
    of_held_out, asked = drawn.features[drawn.of(HELD_OUT)], reference.features[drawn_rows(drawn, reference, HELD_OUT)]
    mine, floor = frechet_distances(drawn, reference)
    return Likeness(
        kid=kid_of_pairs(of_held_out, asked),
        kid_rebuilt=kid_of_pairs(copied, real),
        kid_real=kid_of_pairs(real, real),
        fid=mine,
        fid_real=floor,
        psnr=decibels,
    )


def frechet_distances(drawn: Drawn, reference: Reference) -> tuple[float | None, float | None]:
    """From real pictures of other trained pairs to the drawn ones, and to the real ones of the drawn pairs.

    Both sides are of one size, since the distance shrinks with it: some of the drawn ones where fewer others are left.
    """
    asked = {(each.concept, each.style) for each in drawn.prompts if each.kind == TRAINED}
    others = [each.kind == TRAINED and (each.concept, each.style) not in asked for each in reference.prompts]
    rest = reference.features[torch.tensor(others)]
    mine, real = drawn.features[drawn.of(TRAINED)], reference.features[drawn_rows(drawn, reference, TRAINED)]
    size = min(len(mine), len(rest))
    some, rest = _some_of(len(mine), size), rest[_some_of(len(rest), size)]
    return fid(mine[some], rest), fid(real[some], rest)


def _some_of(count: int, size: int) -> Tensor:
    """`size` rows of `count` by chance."""
    return torch.randperm(count, generator=generator("frechet"))[:size]


def drawn_rows(drawn: Drawn, reference: Reference, kind: str) -> Tensor:
    """The rows of the real pictures that show what was drawn, (N,)."""
    return reference.shown_by([each for each in drawn.prompts if each.kind == kind])


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
    return {name: values[name] for name in ("seed", "steps", "guidance", "sampler", "schedule", "size", "fast")}
