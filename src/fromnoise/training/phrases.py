"""The texts that teach the text encoder words that no caption holds: dictionary, windows of glosses, single words."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence

from fromnoise.data import Dataset
from fromnoise.data.captions import clean, short_gloss, with_article, words
from fromnoise.data.reading import Word
from fromnoise.data.sources import PICTURE_SETS

CONCRETE = frozenset(
    "animal artifact body event feeling food object person phenomenon plant process shape substance".split()
)
"""WordNet's files of things that can be seen; words of the other files are learnt without their glosses."""

_TAXON = ("genus", "family", "order", "suborder", "class", "subclass", "phylum", "superfamily", "subfamily", "tribe")
_TEMPLATES = ("{it}, {style} style", "{style} style {word}", "{it} in {style} style", "{style} {word}")


def phrases(dataset: Dataset, single: Iterable[str], keep_out: Collection[str], seed: int = 0) -> tuple[str, ...]:
    """Distinct texts, cleaned as captions are, none of them one of `keep_out`; `single` are further words."""
    known = [word for word in dataset.words if not _is_taxon(word)]
    seen = [word for word in known if word.lexname in CONCRETE]
    chance = random.Random(seed)
    listed = [
        *(lemma for word in known for lemma in _common(word)),
        *single,
        *(text for word in seen for text in _explained(word)),
        *(text for word in seen for text in _windows(word, chance)),
        *_styled([lemma for word in seen for lemma in _common(word)], chance),
    ]
    kept_out = {clean(each) for each in keep_out}
    return tuple(text for text in dict.fromkeys(map(clean, listed)) if text and text not in kept_out)


def _is_taxon(word: Word) -> bool:
    return word.lemmas[0].split()[0] in _TAXON or word.gloss.startswith(tuple(f"{each} " for each in _TAXON))


def _common(word: Word) -> list[str]:
    """The lemmas that are no proper names."""
    return [lemma for lemma in word.lemmas if not lemma[:1].isupper()]


def _explained(word: Word) -> Iterator[str]:
    """The first lemma with the start of its gloss."""
    for lemma in _common(word)[:1]:
        yield f"{lemma}, {' '.join(short_gloss(word.gloss).split()[:8])}"


def _windows(word: Word, chance: random.Random) -> Iterator[str]:
    """Two runs of two to five words out of gloss and examples: adjectives and verbs in their company."""
    said = words(clean(word.gloss))
    for _ in range(2):
        length = chance.randint(2, 5)
        start = chance.randrange(max(1, len(said) - length + 1))
        yield " ".join(said[start : start + length])


def _styled(lemmas: Sequence[str], chance: random.Random, share: float = 0.3) -> Iterator[str]:
    """Some lemmas with a style, so that style words mean the same beside words that no caption holds."""
    styles = [name for each in PICTURE_SETS for name in (*each.style_names, *each.style_looks)]
    for lemma in lemmas:
        if chance.random() < share:
            style, template = chance.choice(styles), chance.choice(_TEMPLATES)
            yield template.format(it=with_article(lemma), word=lemma, style=style)
