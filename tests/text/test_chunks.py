"""Where a long prompt is cut."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.runtime.errors import UsageError
from fromnoise.text.brackets import weigh
from fromnoise.text.chunks import BACKTRACK, COMMA, Chunk, chunk_ids, chunk_prompt, read
from fromnoise.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return Tokenizer.clip()


def sizes(prompt: str, tokenizer: Tokenizer) -> list[int]:
    return [len(chunk.ids) for chunk in chunk_prompt(prompt, tokenizer)]


def cats(count: int) -> str:
    return "cat " * count


def test_a_short_prompt_is_one_chunk(clip: Tokenizer) -> None:
    [chunk] = chunk_prompt("a (red:1.3) apple", clip)
    assert clip.row(chunk.ids)[:6] == [49406, 320, 736, 3055, 49407, 49407]
    assert chunk.row_weights(77) == [1.0, 1.0, 1.3, *[1.0] * 74]
    assert sizes("", clip) == [0]


def test_a_full_chunk_is_75(clip: Tokenizer) -> None:
    assert sizes(cats(75), clip) == [75]
    assert sizes(cats(76), clip) == [75, 1]
    assert len(clip.row(chunk_prompt(cats(75), clip)[0].ids)) == 77


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (70, 10, [71, 10]),  # the ten words behind the comma go together
        (55, 25, [56, 25]),  # the comma is the 56th piece, 20 before the end
        (54, 25, [75, 5]),  # one further, and the words are cut where the chunk is full
        (74, 3, [75, 3]),  # the comma is the last piece that fits
        (75, 3, [75, 4]),  # a comma that does not fit begins the next chunk
        (0, 80, [75, 6]),
    ],
)
def test_a_near_comma_is_where_it_is_cut(clip: Tokenizer, before: int, after: int, expected: list[int]) -> None:
    assert sizes(cats(before) + ", " + cats(after), clip) == expected


def test_the_last_comma_counts(clip: Tokenizer) -> None:
    assert sizes(f"{cats(60)}, {cats(5)}, {cats(20)}", clip) == [67, 20]
    first, second = chunk_prompt(f"{cats(60)}, (b {cats(20)}:1.5)", clip)
    assert (len(first.ids), set(first.weights)) == (61, {1.0})
    assert set(second.weights) == {1.5}


def test_a_comma_is_forgotten_with_its_chunk(clip: Tokenizer) -> None:
    """A comma that began a chunk as its first piece was forgotten when the chunk before it was closed."""
    assert sizes(f"{cats(75)}, {cats(90)}", clip) == [75, 75, 16]


def test_break_begins_a_chunk(clip: Tokenizer) -> None:
    assert sizes("a red BREAK apple", clip) == [2, 1]
    assert sizes("BREAK a", clip) == [0, 1]
    assert sizes("a BREAK", clip) == [1]
    assert sizes("a BREAK BREAK b", clip) == [1, 0, 1]
    assert sizes(f"{cats(80)} BREAK b", clip) == [75, 5, 1]


def test_without_weighting_there_is_one_chunk(clip: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    [composed] = read("(a:1.2) BREAK " + cats(80), "none").at(0, 1)
    [chunk] = chunk_prompt(composed, clip, "none")
    assert list(chunk.ids) == clip.ids("(a:1.2) BREAK " + cats(80))[:75]
    assert set(chunk.weights) == {1.0}
    assert "75 fit" in caplog.text
    with pytest.raises(UsageError, match="no weighting 'a1112'"):
        read("a", "a1112")


@cache
def small() -> Tokenizer:
    """CLIP's with chunks of 30."""
    return Tokenizer.clip(max_length=32)


WORDS = st.sampled_from(["cat", ",", "cat cat cat", "(dog:1.3)", ", ,", " BREAK ", "[x]"])


@given(words=st.lists(WORDS, max_size=60).map(" ".join))
def test_nothing_is_lost_and_every_cut_is_right(words: str) -> None:
    tokenizer = small()
    chunks = chunk_prompt(words, tokenizer)
    pairs = [(id, span.weight) for section in weigh(words).sections for span in section
             for id in tokenizer.ids(span.text)]  # fmt: skip
    assert [pair for chunk in chunks for pair in zip(chunk.ids, chunk.weights, strict=True)] == pairs
    assert all(len(chunk.ids) <= tokenizer.room for chunk in chunks)
    if "BREAK" not in words:
        for chunk, following in itertools.pairwise(chunks):
            full = len(chunk.ids) == tokenizer.room
            assert full or (
                chunk.ids[-1] == tokenizer.vocabulary[COMMA] and len(chunk.ids) > tokenizer.room - BACKTRACK
            )
            assert following.ids


@given(ids=st.lists(st.integers(0, 9), max_size=30), room=st.integers(1, 9))
def test_ids_are_cut_where_a_chunk_is_full(ids: list[int], room: int) -> None:
    chunks = chunk_ids(ids, room)
    assert [id for chunk in chunks for id in chunk.ids] == ids
    assert all(len(chunk.ids) == room for chunk in chunks[:-1])
    assert chunk_ids([], room) == (Chunk(),)
