"""A score that training can ask for while it runs: a few pictures before judge A."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fromnoise.data import Dataset
from fromnoise.evaluation.judging import load_judge
from fromnoise.evaluation.prompts import TRAINED, pairs, sample

PICTURES = 64


class QuickScore:
    """Judge A and the pairs it asks for; selecting by trained pairs alone leaves the held-out ones to judge B."""

    def __init__(self, judge: Path, dataset: Dataset, *, pictures: int = PICTURES, seed: int = 0) -> None:
        """`judge` is the folder that `fromnoise train judge` wrote."""
        self.judge = load_judge(judge)
        trained = [each for each in pairs(dataset.pictures) if each.kind == TRAINED]
        self.asked = sample(trained, pictures, seed)

    @property
    def prompts(self) -> list[str]:
        """What to draw, one picture each."""
        return [each.text for each in self.asked]

    def __call__(self, pictures: Sequence[Image.Image]) -> dict[str, float]:
        """Shares in [0, 1] of concepts found first and among five, and of styles; and the mean picture-text score."""
        found = self.judge.verdicts(
            self.judge.read(pictures), [each.concept for each in self.asked], [each.style for each in self.asked]
        )
        named = {"top1": found.top1, "top5": found.top5, "style": found.style, "score": found.score}
        return {name: float(values.float().mean()) for name, values in named.items()}
