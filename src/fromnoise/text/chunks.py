"""Weighted words cut into chunks that the text encoder can read, 75 pieces each in published models.

The cuts are those of the AUTOMATIC1111 web UI (`modules/sd_hijack_clip.py`): what follows the last comma moves into
the next chunk when that comma is among the last twenty pieces, and a BREAK always begins a new chunk. A token of
several vectors stays whole: where it doesn't fit, it begins a new chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fromnoise.request import WEIGHTINGS
from fromnoise.runtime.errors import UsageError
from fromnoise.text.brackets import Section, Span, weigh
from fromnoise.text.grammar import Composed, Prompt, literal, parse
from fromnoise.text.tokenizer import END_OF_WORD, Tokenizer

COMMA = f",{END_OF_WORD}"
BACKTRACK = 20
"""How many pieces back a comma may stand for the words behind it to move into the next chunk."""

Words = Composed | str
"""What a prompt says at a step; a string is words whose brackets weigh."""


@dataclass(frozen=True)
class Chunk:
    """Pieces that the encoder reads at once, and what each weighs; start, end and padding are left out."""

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    def row_weights(self, length: int) -> list[float]:
        """The weights of all positions; start, end and padding weigh 1."""
        return [1.0, *self.weights, *[1.0] * (length - 1 - len(self.weights))]


def read(prompt: str, weighting: str = "a1111", *, compose: bool = True) -> Prompt:
    """A prompt with the whole grammar, or with none at all for "none"; UsageError for an unknown weighting.

    For a negative prompt `compose` is false: AND is a word there.
    """
    return literal(prompt) if check_weighting(weighting) == "none" else parse(prompt, compose=compose)


def check_weighting(name: str) -> str:
    """The name; UsageError when it is none of `request.WEIGHTINGS`."""
    if name not in WEIGHTINGS:
        raise UsageError(f"no weighting {name!r}; choose one of {', '.join(WEIGHTINGS)}")
    return name


def said(prompt: Words, weighting: str = "a1111") -> Composed:
    """What a prompt says at a step; a string's brackets weigh, unless the weighting is "none"."""
    if not isinstance(prompt, str):
        return prompt
    return Composed(1.0, ((Span(prompt),),) if weighting == "none" else weigh(prompt).sections)


def chunk_prompt(prompt: Words, tokenizer: Tokenizer, weighting: str = "a1111") -> tuple[Chunk, ...]:
    """The chunks of a prompt, at least one; for "none" just one, and a warning says what was cut."""
    composed = said(prompt, weighting)
    if weighting == "none":
        return chunk_ids(tokenizer.fit(composed.words), tokenizer.room)
    return chunk_sections(composed.sections, tokenizer)


def chunk_sections(sections: Sequence[Section], tokenizer: Tokenizer) -> tuple[Chunk, ...]:
    """The chunks of a prompt, at least one. Each span is tokenized for itself."""
    filler = _Filler(tokenizer.room, tokenizer.vocabulary.get(COMMA))
    for index, section in enumerate(sections):
        if index:
            filler.finish()
        for span in section:
            for whole in tokenizer.wholes(span.text):
                filler.take(whole, span.weight)
    return filler.result()


def chunk_ids(ids: Sequence[int], room: int) -> tuple[Chunk, ...]:
    """Ids of weight 1 cut wherever a chunk is full; at least one chunk."""
    firsts = range(0, max(len(ids), 1), room)
    return tuple(_chunk((id, 1.0) for id in ids[first : first + room]) for first in firsts)


@dataclass
class _Filler:
    """Fills one chunk after the other; `last_comma` is where the chunk's last comma stands."""

    room: int
    comma: int | None
    done: list[Chunk] = field(default_factory=list)
    current: list[tuple[int, float]] = field(default_factory=list)
    last_comma: int | None = None

    def take(self, whole: Sequence[int], weight: float) -> None:
        """The next piece or token; one that doesn't fit begins a new chunk, with the words since a near comma.

        Only a token that no chunk has room for is cut, where each is full.
        """
        if list(whole) == [self.comma]:
            self.last_comma = len(self.current)
        elif len(self.current) == self.room and self._comma_is_near():
            self._move_words_since_comma()
        for part in chunk_ids(whole, self.room):
            if len(self.current) + len(part.ids) > self.room:
                self.finish()
            self.current += [(id, weight) for id in part.ids]

    def finish(self) -> None:
        """Close the chunk, even an empty one."""
        self.done.append(_chunk(self.current))
        self.current, self.last_comma = [], None

    def result(self) -> tuple[Chunk, ...]:
        """All chunks."""
        if self.current or not self.done:
            self.finish()
        return tuple(self.done)

    def _comma_is_near(self) -> bool:
        return self.last_comma is not None and self.room - self.last_comma <= BACKTRACK

    def _move_words_since_comma(self) -> None:
        assert self.last_comma is not None
        first = self.last_comma + 1
        moved = self.current[first:]
        self.current = self.current[:first]
        self.finish()
        self.current = moved


def _chunk(pairs: Iterable[tuple[int, float]]) -> Chunk:
    ids, weights = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
    return Chunk(tuple(ids), tuple(weights))
