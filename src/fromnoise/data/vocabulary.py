"""Gather what the word lists say about each concept."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from fromnoise.data.captions import Vocabulary, fold_plural, short_gloss, words
from fromnoise.data.codepoints import normalise
from fromnoise.data.concepts import Concept
from fromnoise.data.fetching import members
from fromnoise.data.senses import Meaning, Senses
from fromnoise.data.wordnet import WordNet

__all__ = ["read_emojilib", "vocabularies"]

_MOST_TAGS = 8
_MOST_SYNONYMS = 3

# What a kind is never usefully said to be.
_TOO_GENERAL = frozenset(
    "artifact object whole instrumentality entity matter substance unit commodity covering way structure thing "
    "physical entity living thing abstraction communication attribute phenomenon device implement".split()
)


def read_emojilib(archive: Path) -> dict[str, tuple[str, ...]]:
    """emojilib's keywords by code points."""
    [(_, content)] = members(archive, "emoji-en-US.json")
    return {
        normalise("-".join(f"{ord(each):x}" for each in emoji)): tuple(word.replace("_", " ") for word in keywords)
        for emoji, keywords in json.loads(content).items()
    }


def vocabularies(
    concepts: Iterable[Concept], keywords: Mapping[str, tuple[str, ...]], wordnet: WordNet
) -> dict[str, Vocabulary]:
    """The vocabulary of each concept by code points."""
    senses = Senses(wordnet)
    tags = {each.code_points: _tags(each, keywords.get(each.code_points, ()), wordnet) for each in concepts}
    common = Counter(tag for some in tags.values() for tag in some)
    return {
        each.code_points: _vocabulary(each, senses(each), wordnet, _distinctive(tags[each.code_points], common))
        for each in concepts
    }


def _vocabulary(concept: Concept, meaning: Meaning | None, wordnet: WordNet, tags: tuple[str, ...]) -> Vocabulary:
    if meaning is None:
        return Vocabulary(concept.label, tags=tags)
    synset = meaning.synset
    if not meaning.exact:
        return Vocabulary(concept.label, kinds=_usable(synset.lemmas, concept.label)[:1], tags=tags)
    kinds = [lemma for parent in wordnet.hypernyms(synset) for lemma in _usable(parent.lemmas, concept.label)]
    return Vocabulary(
        concept.label,
        synonyms=_usable(synset.lemmas, concept.label)[:_MOST_SYNONYMS],
        kinds=tuple(kind for kind in kinds if kind not in _TOO_GENERAL)[:2],
        gloss=short_gloss(synset.gloss),
        tags=tags,
    )


def _usable(lemmas: Iterable[str], label: str) -> tuple[str, ...]:
    """Lemmas without Latin names, abbreviations, and the label itself."""
    return tuple(
        lemma
        for lemma in lemmas
        if not re.search(r"[A-Z].* [a-z]|[A-Z]{2}|\.", lemma) and lemma.lower() != label.lower()
    )


def _tags(concept: Concept, keywords: Iterable[str], wordnet: WordNet) -> tuple[str, ...]:
    """emojibase's tags, then emojilib's keywords that are nouns of WordNet; none repeats the label's words."""
    listed = [*concept.tags, *(word for word in keywords if word in wordnet)]
    in_label = {fold_plural(word) for word in words(concept.label.lower())}
    return tuple(
        dict.fromkeys(
            tag
            for tag in listed
            if re.fullmatch(r"[a-z][a-z -]{2,}", tag) and not {fold_plural(word) for word in words(tag)} <= in_label
        )
    )


def _distinctive(tags: tuple[str, ...], common: Counter[str]) -> tuple[str, ...]:
    """The tags that fewest concepts share, in order."""
    return tuple(sorted(tags, key=lambda tag: common[tag])[:_MOST_TAGS])
