"""A score to follow training by: a few pictures before judge A.

`python -m fromnoise.evaluation JUDGE DATASET MODEL...` prints a line for each model folder.
"""

from __future__ import annotations

from pathlib import Path

import torch

from fromnoise.data import Dataset
from fromnoise.evaluation.drawing import Show, draw
from fromnoise.evaluation.prompts import HELD_OUT, TRAINED, pairs, sample
from fromnoise.pipeline import load
from fromnoise.request import Request
from fromnoise.training.judging import Pictures, load_judge

PICTURES = 64
"""Pictures of each kind."""

STEPS = 12
"""Enough to tell one checkpoint from the next."""

Figures = dict[str, dict[str, float]]
"""By kind of prompt: shares in [0, 1] of concepts found first and among five, and of styles; the mean score."""


class QuickScore:
    """Judge A and the pairs it asks for, the same ones at every call.

    Select checkpoints by trained pairs; held-out ones are for the eye, and for judge B in the end.
    """

    def __init__(self, judge: Path, dataset: Dataset, *, pictures: int = PICTURES, seed: int = 0) -> None:
        """`judge` is the folder that `fromnoise train judge` wrote; `pictures` of each kind at most."""
        self.judge = load_judge(judge)
        known = pairs(dataset.pictures)
        kinds = ([each for each in known if each.kind == kind] for kind in (TRAINED, HELD_OUT))
        self.asked = [each for kind in kinds for each in sample(kind, pictures, seed)]

    @property
    def prompts(self) -> list[str]:
        """What to draw, one picture each."""
        return [each.text for each in self.asked]

    def __call__(self, pictures: Pictures) -> Figures:
        """What the judge says of a picture of each prompt."""
        found = self.judge.verdicts(
            self.judge.study(pictures), [each.concept for each in self.asked], [each.style for each in self.asked]
        )
        figures: Figures = {}
        for kind in dict.fromkeys(each.kind for each in self.asked):
            mine = torch.tensor([each.kind == kind for each in self.asked])
            named = {"top1": found.top1, "top5": found.top5, "style": found.style, "score": found.score}
            figures[kind] = {name: float(values[mine].float().mean()) for name, values in named.items()}
        return figures


def quick_score(
    model: Path,
    judge: Path,
    dataset: Dataset,
    *,
    pictures: int = PICTURES,
    steps: int = STEPS,
    guidance: float | None = None,
    show: Show | None = None,
) -> Figures:
    """Draw with the model in a folder (a run's `model-400`, say) and let a judge look: a minute or two on one core."""
    asked = QuickScore(judge, dataset, pictures=pictures)
    settings = Request(seed=0, steps=steps, guidance=guidance)
    return asked(draw(load(model), asked.prompts, settings, show=show))


def as_line(figures: Figures) -> str:
    """The figures on one line, for a log."""
    said = {kind: " ".join(f"{name} {each:.3f}" for name, each in values.items()) for kind, values in figures.items()}
    return "; ".join(f"{kind}: {values}" for kind, values in said.items())
