"""Which pictures a model may learn from: the same on every machine, for ever, and whichever sets could be fetched.

Hashes of names decided it once, over all sets together. `splits.tsv` keeps what came of that, since a set that is
missing changes which families share a drawing and which concepts are eligible; what it doesn't name is hashed anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = [
    "HELD_OUT_SHARE",
    "JUDGE_TEST_SHARE",
    "Held",
    "Settled",
    "fraction",
    "held_out",
    "judge_fold",
    "settled",
    "whole_group",
]

HELD_OUT_SHARE = 0.08
"""The share of the eligible concepts that one drawing family is not trained on."""

JUDGE_TEST_SHARE = 0.10
"""The share of drawings that judges are measured on and never see."""

_FAMILIES_LEFT = 2


@dataclass(frozen=True)
class Held:
    """Nothing of `concept` that belongs to drawing group `group` is trained on."""

    concept: str
    group: str


@dataclass(frozen=True)
class Settled:
    """What is known of a concept: its drawing groups of several families, and the group that is held out, or None."""

    joined: tuple[str, ...]
    held: str | None


@cache
def settled() -> Mapping[str, Settled]:
    """The concepts of a build with every set, as `splits.tsv` lists them."""
    text = files("fromnoise.data").joinpath("splits.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {
        concept: Settled(() if joined == "-" else tuple(joined.split()), None if held == "-" else held)
        for concept, joined, held in rows
    }


def whole_group(concept: str, group: str) -> str:
    """The drawing group that the families of `group` belong to where every set is there."""
    families = set(group.split("+"))
    joined = settled()[concept].joined if concept in settled() else ()
    return next((each for each in joined if families <= set(each.split("+"))), group)


def fraction(*key: str) -> float:
    """A number in [0, 1) that looks random and depends on the key alone."""
    digest = hashlib.sha256("\0".join(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(groups: Mapping[str, AbstractSet[str]], candidates: Iterable[str]) -> frozenset[Held]:
    """Which drawing group of which concept is held out.

    `groups` gives each concept's drawing groups (families, joined where their drawings are near duplicates).
    A candidate that isn't settled is eligible when at least two other groups remain to learn it from.
    """
    known = settled()
    named = (Held(concept, group) for concept in groups if concept in known and (group := known[concept].held))
    new = (concept for concept in candidates if concept not in known)
    chosen = (concept for concept in new if fraction("held out", concept) < HELD_OUT_SHARE)
    return frozenset(named) | frozenset(
        Held(concept, min(groups[concept], key=lambda group: fraction("family", concept, group)))
        for concept in chosen
        if len(groups[concept]) > _FAMILIES_LEFT
    )


def judge_fold(concept: str, group: str) -> str:
    """ "test" for the drawings that judges never see, "train" otherwise; near duplicates share it."""
    return "test" if fraction("judge", concept, group) < JUDGE_TEST_SHARE else "train"
