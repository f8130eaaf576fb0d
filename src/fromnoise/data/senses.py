"""Which meaning in WordNet a concept has: the Unicode subgroup says what sort of thing to look for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from fromnoise.data.concepts import Concept
from fromnoise.data.wordnet import Synset, WordNet

__all__ = ["Meaning", "Senses"]

_THINGS = ("artifact", "object")

# By the first part of the subgroup's slug, or by the whole slug where that is listed.
_LEXNAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "animal": ("animal",),
        "cat-face": ("animal",),
        "monkey-face": ("animal",),
        "plant": ("plant",),
        "plant-other": ("plant", "object", "food", "artifact"),
        "food": ("food", "plant", "animal"),
        "drink": ("food", *_THINGS),
        "dishware": ("artifact",),
        "place": (*_THINGS, "location"),
        "place-geographic": ("object", "location"),
        "transport": ("artifact",),
        "hotel": _THINGS,
        "time": ("artifact",),
        "sky-weather": ("phenomenon", "object", "artifact"),
        "event": (*_THINGS, "plant"),
        "award-medal": ("artifact", "communication"),
        "sport": ("artifact",),
        "game": ("artifact",),
        "arts-crafts": ("artifact",),
        "clothing": ("artifact", "object"),
        "music": ("artifact", "communication"),
        "money": ("artifact", "possession"),
        "book-paper": ("artifact", "communication"),
        "mail": ("artifact", "communication"),
        "science": ("artifact", "body", "animal"),
        "medical": ("artifact", "substance", "body"),
    }
)


@dataclass(frozen=True)
class Meaning:
    """What a concept is: one of WordNet's meanings, or only a kind of `lemma` where `synset` is None."""

    lemma: str
    synset: Synset | None


class Senses:
    """Finds meanings by the words of labels, with a hand-made table for what that gets wrong."""

    def __init__(self, wordnet: WordNet) -> None:
        self._wordnet = wordnet
        self._corrections = _corrections()

    def __call__(self, concept: Concept) -> Meaning | None:
        """The concept's meaning, or None where there is nothing to say; faces have none but the table's."""
        correction = self._corrections.get(concept.code_points)
        if correction is not None:
            return self._corrected(correction)
        return None if concept.group == "smileys-emotion" else self._by_label(concept)

    def _by_label(self, concept: Concept) -> Meaning | None:
        label = concept.label.lower().removesuffix(" face")
        for lemma in _singular_too(label):
            synset = self._sense(lemma, concept.subgroup)
            if synset is not None:
                return Meaning(lemma, synset)
        heads = (lemma for lemma in _heads(label) if self._sense(lemma, concept.subgroup))
        head = next(heads, None)
        return None if head is None else Meaning(head, None)

    def _sense(self, lemma: str, subgroup: str) -> Synset | None:
        """The commonest meaning of the sort that the subgroup asks for first."""
        senses = self._wordnet.senses(lemma)
        found = (synset for sort in _wanted(subgroup) for synset in senses if synset.lexname == sort)
        return next(found, None)

    def _corrected(self, correction: str) -> Meaning | None:
        """What the table says: "lemma 2" is its second meaning, "~lemma" a kind of that, "-" none."""
        if correction == "-":
            return None
        if correction.startswith("~"):
            return Meaning(correction[1:], None)
        lemma, _, number = correction.rpartition(" ")
        return Meaning(lemma.lower(), self._wordnet.senses(lemma)[int(number) - 1])


def _wanted(subgroup: str) -> tuple[str, ...]:
    return _LEXNAMES.get(subgroup) or _LEXNAMES.get(subgroup.partition("-")[0]) or _THINGS


def _heads(label: str) -> Iterator[str]:
    """Ever shorter ends of a label's main part: "tram car with lights" gives "tram car", then "car"."""
    main = _DETAIL.sub("", label).split()
    for start in range(len(main)):
        yield from _singular_too(" ".join(main[start:]))


def _singular_too(lemma: str) -> tuple[str, ...]:
    return lemma, lemma.removesuffix("s"), re.sub("ies$", "y", lemma)


_DETAIL = re.compile(r" (with|without|of|in|on|at|from|and|behind|over|showing)\b.*")


def _corrections() -> dict[str, str]:
    """The hand-made table `senses.tsv`: the meaning of a concept."""
    text = files("fromnoise.data").joinpath("senses.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {row[0]: row[1] for row in rows}
