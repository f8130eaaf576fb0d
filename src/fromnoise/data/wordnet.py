"""Read WordNet's database of nouns: synsets, their glosses and what they are a kind of.

The format is Princeton's wndb(5WN): one synset a line in `data.noun`, one lemma a line in `index.noun`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fromnoise.data.fetching import members

__all__ = ["LEXNAMES", "Synset", "WordNet", "parse_index", "parse_synset", "read_wordnet"]

LEXNAMES: tuple[str, ...] = (
    *("adj.all", "adj.pert", "adv.all", "tops", "act", "animal", "artifact", "attribute", "body", "cognition"),
    *("communication", "event", "feeling", "food", "group", "location", "motive", "object", "person"),
    *("phenomenon", "plant", "possession", "process", "quantity", "relation", "shape", "state", "substance", "time"),
)
"""The lexicographer files by number, as far as the nouns go; the nouns' without their "noun." prefix."""

_HYPERNYM = frozenset({"@", "@i"})


@dataclass(frozen=True)
class Synset:
    """Words of one meaning. `hypernyms` are offsets of more general synsets; `gloss` is the text after the bar."""

    offset: str
    lexname: str
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    gloss: str


def parse_synset(line: str) -> Synset:
    """The synset of one line of `data.noun`. Raises ValueError for a line of another form."""
    head, _, gloss = line.partition("| ")
    offset, lex_file, _, count, *rest = head.split()
    words = 2 * int(count, 16)
    pointers = rest[words + 1 :]
    if len(pointers) < 4 * int(rest[words]):
        raise ValueError(f"a synset with too few pointers: {line[:40]!r}")
    return Synset(
        offset=offset,
        lexname=LEXNAMES[int(lex_file)],
        lemmas=tuple(word.replace("_", " ") for word in rest[:words:2]),
        hypernyms=tuple(
            target for symbol, target in zip(pointers[::4], pointers[1::4], strict=False) if symbol in _HYPERNYM
        ),
        gloss=gloss.strip(),
    )


def parse_index(line: str) -> tuple[str, tuple[str, ...]]:
    """Lemma and synset offsets, the commonest meaning first, of one line of `index.noun`."""
    fields = line.split()
    return fields[0].replace("_", " "), tuple(fields[len(fields) - int(fields[2]) :])


class WordNet:
    """The nouns: meanings by lemma, and more general meanings by meaning."""

    def __init__(self, synsets: Iterable[Synset], index: Mapping[str, tuple[str, ...]]) -> None:
        self._synsets = {synset.offset: synset for synset in synsets}
        self._index = index

    def __contains__(self, lemma: str) -> bool:
        return lemma.lower() in self._index

    def __iter__(self) -> Iterator[Synset]:
        return iter(self._synsets.values())

    def senses(self, lemma: str) -> tuple[Synset, ...]:
        """The meanings of a lemma, the commonest first; none for an unknown one."""
        return tuple(self._synsets[offset] for offset in self._index.get(lemma.lower(), ()))

    def hypernyms(self, synset: Synset) -> tuple[Synset, ...]:
        """What the synset is a kind of."""
        return tuple(self._synsets[offset] for offset in synset.hypernyms)


def read_wordnet(archive: Path) -> WordNet:
    """Read the nouns from the npm package's archive."""
    texts = {PurePosixPath(name).name: content.decode() for name, content in members(archive, ".noun")}
    return WordNet(
        map(parse_synset, _entries(texts["data.noun"])), dict(map(parse_index, _entries(texts["index.noun"])))
    )


def _entries(text: str) -> Iterator[str]:
    """Lines but for the licence, whose lines begin with blanks."""
    return (line for line in text.splitlines() if line and not line.startswith(" "))
