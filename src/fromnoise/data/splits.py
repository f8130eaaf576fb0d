"""Which pictures a model may learn from, decided by hashes of names alone: the same on every machine, for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

__all__ = ["HELD_OUT_SHARE", "JUDGE_TEST_SHARE", "Held", "fraction", "held_out", "judge_fold"]

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


def fraction(*key: str) -> float:
    """A number in [0, 1) that looks random and depends on the key alone."""
    digest = hashlib.sha256("\0".join(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(groups: Mapping[str, AbstractSet[str]], candidates: Iterable[str]) -> frozenset[Held]:
    """Which drawing group of which concept is held out.

    `groups` gives each concept's drawing groups (families, joined where their drawings are near duplicates).
    A candidate is eligible when at least two other groups remain to learn it from.
    """
    chosen = (concept for concept in candidates if fraction("held out", concept) < HELD_OUT_SHARE)
    return frozenset(
        Held(concept, min(groups[concept], key=lambda group: fraction("family", concept, group)))
        for concept in chosen
        if len(groups[concept]) > _FAMILIES_LEFT
    )


def judge_fold(concept: str, group: str) -> str:
    """ "test" for the drawings that judges never see, "train" otherwise; near duplicates share it."""
    return "test" if fraction("judge", concept, group) < JUDGE_TEST_SHARE else "train"
