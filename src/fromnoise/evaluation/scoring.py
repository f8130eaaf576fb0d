"""What other experiments ask a judge: how well pictures fit their prompts, and where they lie among real ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.evaluation.prompts import Prompt
from fromnoise.evaluation.reference import load_reference
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import JUDGE
from fromnoise.training.judging import Pictures, Trained, load_judge


def score(pictures: Pictures, prompts: Sequence[Prompt | str], judge: Path | Trained = JUDGE) -> Tensor:
    """The picture-text score of each picture, (N,) in [-1, 1]: how near it lies to what its prompt asks for.

    A prompt in plain words is taken to ask for the longest label of a concept that it holds; UsageError when it holds
    none. Differences between pictures of equal prompts mean more than the figure itself: real pictures get about 0.3.
    """
    judge = judge if isinstance(judge, Trained) else load_judge(judge)
    asked = torch.tensor([judge.index[_concept(each, judge)] for each in prompts])
    return (judge.study(pictures).embedding * judge.vectors[asked]).sum(1)


def features(pictures: Pictures, judge: Path = JUDGE) -> Tensor:
    """A judge's features of pictures on the axes that real pictures vary along, (N, D): what distances are taken in.

    The folder must hold the real pictures' features (the shipped one does, `prepare` writes them).
    """
    return load_reference(judge).project(load_judge(judge).read(pictures).features)


def _concept(prompt: Prompt | str, judge: Trained) -> str:
    if isinstance(prompt, Prompt):
        return prompt.concept
    said = f" {_plain(prompt)} "
    held = [(len(label), name) for name, label in zip(judge.names, judge.labels, strict=True) if _in(label, said)]
    if not held:
        raise UsageError(f"the judge knows nothing that {prompt!r} asks for; name a concept by its label")
    return max(held)[1]


def _in(label: str, said: str) -> bool:
    return f" {_plain(label)} " in said


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
