"""Gather what the word lists say about each concept."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fromnoise.data.captions import Vocabulary, fold_plural, short_gloss, words
from fromnoise.data.codepoints import normalise
from fromnoise.data.concepts import Concept
from fromnoise.data.fetching import members
from fromnoise.data.senses import Meaning, Senses
from fromnoise.data.wordnet import Synset, WordNet

__all__ = ["read_emojilib", "vocabularies"]

_MOST_TAGS = 8
_MOST_SYNONYMS = 3
_MOST_KINDS = 2

# What a kind is never usefully said to be.
_GENERAL = """
artifact object whole instrumentality entity matter substance unit commodity covering way structure thing abstraction
communication attribute phenomenon device implement
"""
_TOO_GENERAL = frozenset(_GENERAL.split())

_RUDE = frozenset(("wood pussy", "coffin nail", "boob tube", "idiot box", "goggle box", "crapper", "fag"))


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
    if meaning.synset is None:
        return Vocabulary(concept.label, kinds=(meaning.lemma,), tags=tags)
    return Vocabulary(
        concept.label,
        synonyms=_synonyms(concept.label, meaning, wordnet)[:_MOST_SYNONYMS],
        kinds=_kinds(concept.label, meaning.synset, wordnet)[:_MOST_KINDS],
        gloss=short_gloss(meaning.synset.gloss),
        tags=tags,
    )


def _synonyms(label: str, meaning: Meaning, wordnet: WordNet) -> tuple[str, ...]:
    """Other words of the meaning; a single word only where this is its commonest meaning."""
    assert meaning.synset is not None
    listed = (lemma for lemma in meaning.synset.lemmas if " " in lemma or wordnet.senses(lemma)[0] == meaning.synset)
    return tuple(dict.fromkeys(_suitable((meaning.lemma, *listed), label)))


def _kinds(label: str, synset: Synset, wordnet: WordNet) -> tuple[str, ...]:
    listed = (lemma for parent in wordnet.hypernyms(synset) for lemma in parent.lemmas)
    return tuple(kind for kind in _suitable(listed, label) if kind not in _TOO_GENERAL)


def _suitable(lemmas: Iterable[str], label: str) -> Iterator[str]:
    """Lemmas in everyday English that are not the label: no Latin, no abbreviations, nothing rude."""
    names = {label.lower(), label.lower().removesuffix(" face")}
    for lemma in lemmas:
        if not re.search(r"[A-Z].* | .*[A-Z]|[A-Z]{2}|\.", lemma) and lemma not in _RUDE and lemma.lower() not in names:
            yield lemma


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
