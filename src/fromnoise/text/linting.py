"""A prompt as the text encoders get it: what weighs what, which chunk it falls into, what is cut, what is odd."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenizers.decoders import ByteLevel

from fromnoise.text.brackets import weigh
from fromnoise.text.chunks import Chunk, chunk_ids, chunk_prompt, read
from fromnoise.text.grammar import Adapter, Composed, Prompt, read_edits
from fromnoise.text.tokenizer import END, END_OF_WORD, START, Tokenizer

ENCODERS = ("text_encoder", "text_encoder_2")
"""What diffusers calls the folders of a model's text encoders."""
ADAPTERS = ("lora", "lyco")
"""Kinds of tags that name an adapter."""

_HALF_A_LETTER = "\N{REPLACEMENT CHARACTER}"


class HasTokenizers(Protocol):
    """A `PromptEncoder`, say."""

    @property
    def tokenizers(self) -> Sequence[Tokenizer]: ...


@dataclass(frozen=True)
class Piece:
    """A token as the vocabulary spells it, its id and its weight, and whether a word ends with it."""

    text: str
    id: int
    weight: float
    ends_word: bool


@dataclass(frozen=True)
class Reading:
    """What one encoder reads: the pieces of each chunk, of `room` each, and the words that were cut off."""

    encoder: str
    room: int
    chunks: tuple[tuple[Piece, ...], ...]
    cut: str = ""


@dataclass(frozen=True)
class PartReport:
    """One of the composed parts: its weight, its words with all weights written out, and each encoder's reading."""

    weight: float
    text: str
    encoders: tuple[Reading, ...]


@dataclass(frozen=True)
class Moment:
    """The steps, counted from 1, at which the prompt says this."""

    steps: tuple[int, ...]
    parts: tuple[PartReport, ...]


@dataclass(frozen=True)
class Report:
    """All there is to say about a prompt. `pieced` are words that the vocabulary can only spell in pieces."""

    prompt: str
    weighting: str
    steps: int
    adapters: tuple[Adapter, ...]
    moments: tuple[Moment, ...]
    changes: tuple[int, ...]
    pieced: tuple[str, ...]
    remarks: tuple[str, ...]


def lint(
    prompt: str, encoder: HasTokenizers | Sequence[Tokenizer], *, steps: int = 25, weighting: str = "a1111"
) -> Report:
    """How a prompt is read by an encoder, or by its tokenizers alone, in a drawing of `steps` steps.

    UsageError for an unknown weighting; no prompt is an error.
    """
    tokenizers = encoder if isinstance(encoder, Sequence) else encoder.tokenizers
    tree = read(prompt, weighting)
    moments = tuple(_moments(tree, tokenizers, steps, weighting))
    return Report(
        prompt=prompt,
        weighting=weighting,
        steps=steps,
        adapters=tree.adapters,
        moments=moments,
        changes=tuple(step + 1 for step in tree.changes(steps)),
        pieced=tuple(dict.fromkeys(_pieced(moments))),
        remarks=tuple(dict.fromkeys(_remarks(tree, moments, steps))),
    )


def _moments(tree: Prompt, tokenizers: Sequence[Tokenizer], steps: int, weighting: str) -> Iterator[Moment]:
    """What the prompt says, each with all its steps, in the order of their first."""
    said: dict[tuple[Composed, ...], list[int]] = {}
    for step in range(steps):
        said.setdefault(tree.at(step, steps), []).append(step + 1)
    for parts, when in said.items():
        yield Moment(tuple(when), tuple(_part(part, tokenizers, weighting) for part in parts))


def _part(part: Composed, tokenizers: Sequence[Tokenizer], weighting: str) -> PartReport:
    text = part.words if weighting == "none" else part.text
    pairs = zip(ENCODERS, tokenizers, strict=False)
    return PartReport(part.weight, text, tuple(_reading(name, part, own, weighting) for name, own in pairs))


def _reading(name: str, part: Composed, tokenizer: Tokenizer, weighting: str) -> Reading:
    if weighting == "none":
        ids = tokenizer.ids(part.words)
        chunks, cut = chunk_ids(ids[: tokenizer.room], tokenizer.room), tokenizer.text(ids[tokenizer.room :])
    else:
        chunks, cut = chunk_prompt(part, tokenizer, weighting), ""
    return Reading(name, tokenizer.room, tuple(_pieces(chunk, tokenizer) for chunk in chunks), cut)


def _pieces(chunk: Chunk, tokenizer: Tokenizer) -> tuple[Piece, ...]:
    return tuple(piece_of(id, weight, tokenizer) for id, weight in zip(chunk.ids, chunk.weights, strict=True))


def piece_of(id: int, weight: float, tokenizer: Tokenizer) -> Piece:
    """A token with all there is to know about it."""
    text = tokenizer.piece(id)
    added = id in (tokenizer.start, tokenizer.end, tokenizer.pad) or id >= len(tokenizer.vocabulary)
    return Piece(text, id, weight, added or text.endswith(END_OF_WORD))


def words(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, ...]]:
    """Pieces by the words that they spell."""
    word: list[Piece] = []
    for piece in pieces:
        word.append(piece)
        if piece.ends_word:
            yield tuple(word)
            word = []
    if word:
        yield tuple(word)


def spelling(word: Sequence[Piece]) -> str:
    """A word as a person reads it, its pieces parted by a middle dot; not parted inside a letter of several bytes."""
    decode = ByteLevel().decode
    spelled = [decode([piece.text.removesuffix(END_OF_WORD)]) for piece in word]
    if any(_HALF_A_LETTER in each for each in spelled):
        return str(decode([piece.text.removesuffix(END_OF_WORD) for piece in word]))
    return "·".join(spelled)


def _pieced(moments: Iterable[Moment]) -> Iterator[str]:
    for reading in _readings(moments):
        for chunk in reading.chunks:
            yield from (spelling(word) for word in words(chunk) if len(word) > 1)


def _readings(moments: Iterable[Moment]) -> Iterator[Reading]:
    for moment in moments:
        for part in moment.parts:
            yield from part.encoders


def _remarks(tree: Prompt, moments: Sequence[Moment], steps: int) -> Iterator[str]:
    for reading in _readings(moments):
        if reading.cut:
            yield f"{reading.encoder} reads {reading.room} pieces; cut off: {reading.cut!r}"
        if any(piece.text in (START, END) for chunk in reading.chunks for piece in chunk):
            yield f"{START} and {END} are the encoder's own marks; in a prompt they end it early"
    if not tree.literal:
        yield from _remarks_on_grammar(tree)
        for text in {part.text(step, steps): None for step in range(steps) for part in tree.parts}:
            yield from _remarks_on_brackets(text)


def _remarks_on_grammar(tree: Prompt) -> Iterator[str]:
    for adapter in tree.adapters:
        if adapter.kind not in ADAPTERS:
            yield f"<{adapter.kind}:{adapter.name}> is no adapter; it is taken out, and nothing else is done"
    if len(tree.parts) == 1 and tree.parts[0].weight != 1.0:
        yield f"the number at the end weighs the whole prompt: {tree.parts[0].weight:g} times the guidance"
    for part in tree.parts:
        text = "".join(node for node in part.nodes if isinstance(node, str))
        if "[" in text and read_edits(text) is None:
            yield "a | outside [ ], or a backslash at the end, keeps edits and alternations from being read"
        else:
            for bracket in _no_edits(text):
                yield f"{bracket} is no edit, which is [from:to:when] with a number last; it is words that weigh less"


def _no_edits(text: str) -> Iterator[str]:
    """Square brackets with a colon in them, other than in round ones or behind a backslash."""
    text, count = re.sub(r"\\.", "", text), 1
    while count:
        text, count = re.subn(r"\([^][()]*\)", "", text)
    yield from (each for each in re.findall(r"\[[^][]*\]", text) if ":" in each)


def _remarks_on_brackets(text: str) -> Iterator[str]:
    weighed = weigh(text)
    if weighed.unclosed:
        yield f"{' '.join(weighed.unclosed)} never closed: what follows weighs so to the end"
    if weighed.stray:
        yield f"{' '.join(weighed.stray)} closes nothing, and is read as words"
    if weighed.break_inside:
        yield "BREAK inside brackets begins a new chunk here; the AUTOMATIC1111 web UI reads it as a word"
    if not all(math.isfinite(span.weight) for section in weighed.sections for span in section):
        yield "these weights multiply to more than a number can hold; nothing can be drawn"
