"""Texts that teach words that no caption holds: dictionary lines, runs of words out of glosses, words and pairs."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence

from fromnoise.data import Dataset
from fromnoise.data.captions import clean, short_gloss, with_article, words
from fromnoise.data.reading import Word
from fromnoise.data.sources import PICTURE_SETS

__all__ = ["CONCRETE", "STYLES", "compounds", "explanations", "in_wider_company", "more_phrases", "phrases"]

_SEEN = "animal artifact body event feeling food object person phenomenon plant process shape substance"
CONCRETE = frozenset(_SEEN.split())
"""WordNet's files of things that can be seen; words of the other files are learnt without their glosses."""

STYLES = tuple(name for each in PICTURE_SETS for name in (*each.style_names, *each.style_looks))
"""All that captions call a style."""

_TAXA = ("genus", "family", "order", "suborder", "class", "subclass", "phylum", "superfamily", "subfamily", "tribe")
_PLAIN = ("picture of {it}", "drawing of {it}", "emoji of {it}", "illustration of {it}")
_STYLED = ("{it}, {style} style", "{style} style {word}", "{it} in {style} style", "{style} {word}")
_JOINED = (
    *("{a} {b}", "{b} {a} {c}", "{a} with {b}", "{a} of {b}", "{a} and {b}", "{b} {a} with {c}"),
    *("a {a} {b}", "{c} {b} {a}", "{a}, {b}", "{a} in {b}", "{b} for {a}", "{c} {b} {d} {a}"),
)
_AMONG = (
    *("{r} {a}", "{r} {s} {a}", "{a} {r}", "{a} from a {r}", "{a} with {r}", "{a} for {r}", "{r} {a} {b}"),
    *("{a} of {r}", "{a} and {r}", "{a} in the {r}", "{r} {b} {a}", "{s} {a} with a {r}", "{a} {r} {b}"),
    *("{r} of {a}", "{a} by the {r}"),
)
_STYLED_SHARE = 0.3
_GLOSS_WORDS = 8
_LONGER_GLOSS_WORDS = 14


def phrases(dataset: Dataset, single: Iterable[str], seed: int = 0) -> tuple[str, ...]:
    """Distinct texts from all of the dictionary, cleaned as captions are; `single` are further words."""
    known = [word for word in dataset.words if not _is_taxon(word)]
    seen = [word for word in known if word.lexname in CONCRETE]
    chance = random.Random(seed)
    listed = [
        *(lemma for word in known for lemma in _common(word)),
        *single,
        *(_explained(lemma, word) for word in seen for lemma in _common(word)[:1]),
        *(text for word in seen for text in _windows(word, chance)),
        *(_styled(lemma, chance) for word in seen for lemma in _common(word) if chance.random() < _STYLED_SHARE),
    ]
    return _distinct(listed)


def more_phrases(dataset: Dataset, near: Collection[str], single: Iterable[str], seed: int = 1) -> tuple[str, ...]:
    """Further texts about the words in `near`: with gloss, article and style, as a picture, beside a synonym."""
    chance = random.Random(seed)
    listed: list[str] = []
    for word in dataset.words:
        lemmas = [lemma for lemma in map(clean, _common(word)) if lemma in near]
        for lemma in lemmas:
            listed += [_explained(lemma, word), *_in_company(lemma, lemmas, chance)]
    for lemma in single:
        if lemma in near:
            listed += _in_company(lemma, (), chance)
    return _distinct(listed)


def compounds(around: Iterable[Sequence[str]], count: int, seed: int = 2) -> tuple[str, ...]:
    """Words in each other's company, `count` texts from each list `around` one meaning: "striped savanna horse"."""
    chance = random.Random(seed)
    lists = [words for words in around if len(words) >= 4]
    return _distinct(_compound(words, chance) for words in lists for _ in range(count))


def in_wider_company(
    meanings: Iterable[tuple[Sequence[str], Sequence[str]]], count: int, seed: int = 3
) -> tuple[str, ...]:
    """One or two words near a meaning among words that are not, `count` texts from each such pair of lists of words:
    "garlic in the cobalamin".
    """
    chance = random.Random(seed)
    known = [(near, further) for near, further in meanings if len(near) >= 2 and len(further) >= 2]
    return _distinct(_mixed(near, further, chance) for near, further in known for _ in range(count))


def explanations(dataset: Dataset) -> tuple[str, ...]:
    """What the dictionary says of things that can be seen, shorter and longer, without their names."""
    told = [words(clean(word.gloss)) for word in dataset.words if word.lexname in CONCRETE and not _is_taxon(word)]
    return _distinct(" ".join(each[:length]) for each in told for length in (_GLOSS_WORDS, _LONGER_GLOSS_WORDS))


def _mixed(near: Sequence[str], further: Sequence[str], chance: random.Random) -> str:
    (a, b), (r, s) = chance.sample(near, 2), chance.sample(further, 2)
    return chance.choice(_AMONG).format(a=a, b=b, r=r, s=s)


def _compound(words: Sequence[str], chance: random.Random) -> str:
    a, b, c, d = chance.sample(words, 4)
    return chance.choice(_JOINED).format(a=a, b=b, c=c, d=d)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text in dict.fromkeys(map(clean, texts)) if text)


def _is_taxon(word: Word) -> bool:
    return word.lemmas[0].split()[0] in _TAXA or word.gloss.startswith(tuple(f"{each} " for each in _TAXA))


def _common(word: Word) -> list[str]:
    """The lemmas that are no proper names."""
    return [lemma for lemma in word.lemmas if not lemma[:1].isupper()]


def _explained(lemma: str, word: Word) -> str:
    """A word with the start of its gloss."""
    return f"{lemma}, {' '.join(short_gloss(word.gloss).split()[:_GLOSS_WORDS])}"


def _windows(word: Word, chance: random.Random) -> Iterator[str]:
    """Two runs of two to five words out of gloss and examples: adjectives and verbs in their company."""
    said = words(clean(word.gloss))
    for _ in range(2):
        length = chance.randint(2, 5)
        start = chance.randrange(max(1, len(said) - length + 1))
        yield " ".join(said[start : start + length])


def _styled(lemma: str, chance: random.Random) -> str:
    """A word with a style, so that style words mean the same beside words that no caption holds."""
    style, template = chance.choice(STYLES), chance.choice(_STYLED)
    return template.format(it=with_article(lemma), word=lemma, style=style)


def _in_company(lemma: str, synonyms: Sequence[str], chance: random.Random) -> Iterator[str]:
    it = with_article(lemma)
    yield it
    yield chance.choice(_PLAIN).format(it=it)
    yield _styled(lemma, chance)
    others = [each for each in synonyms if each != lemma]
    if others:
        yield f"{lemma}, {chance.choice(others)}"
