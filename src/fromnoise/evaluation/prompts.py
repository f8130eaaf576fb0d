"""What is asked for: pairs of concept and style, seen in training or held out of it, and reworded prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fromnoise.data import Picture
from fromnoise.data.captions import clean, with_article
from fromnoise.data.sources import PICTURE_SETS
from fromnoise.runtime.seeds import generator

REWORDED_FILE = Path(__file__).parent / "reworded.jsonl"

TRAINED, HELD_OUT, REWORDED = "trained pairs", "held-out pairs", "reworded prompts"
"""The kinds of prompts, as reports name them."""

REBUILT = "held out, rebuilt"
"""What real pictures of held-out pairs show when they have been through the autoencoder."""

_SAID = {each.style: each.style_names[0] for each in PICTURE_SETS}


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what its picture should show: its concept's code points and label, its style if named."""

    text: str
    concept: str
    label: str
    style: str | None
    kind: str


def pair(concept: str, label: str, style: str, kind: str) -> Prompt:
    """A concept in a style, in words that captions use: "an apple, noto style"."""
    text = clean(f"{with_article(label)}, {_SAID.get(style, style)} style")
    return Prompt(text, concept, label, style, kind)


def pairs(pictures: Iterable[Picture]) -> list[Prompt]:
    """What each real picture shows, as a prompt of its kind."""
    kinds = {"train": TRAINED, "held_out": HELD_OUT}
    return [pair(each.concept, each.label, each.style, kinds[each.split]) for each in pictures]


def reworded() -> list[Prompt]:
    """The 200 prompts that were written before any training and whose words no caption holds."""
    lines = map(json.loads, REWORDED_FILE.read_text(encoding="utf-8").splitlines())
    return [Prompt(each["prompt"], each["concept"], each["label"], None, REWORDED) for each in lines]


def sample(prompts: Sequence[Prompt], count: int | None, seed: int) -> list[Prompt]:
    """`count` different prompts by chance; all of them for None or where there are no more.

    A few sets draw a concept twice, so that two real pictures have one prompt: it is asked for once.
    """
    order = torch.randperm(len(prompts), generator=generator("prompts", seed)).tolist()
    different: dict[Prompt, int] = {}
    for index in order if count is not None and count < len(prompts) else range(len(prompts)):
        different.setdefault(prompts[index], index)
    return [prompts[index] for index in sorted(list(different.values())[:count])]
