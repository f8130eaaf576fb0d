"""What is said about a prompt."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.runtime.errors import UsageError
from fromnoise.text import Tokenizer, lint
from fromnoise.text.linting import Piece, Report, piece_of, spelling, words

CLIP = [Tokenizer.clip()]


def remarks(prompt: str, **fields: str) -> str:
    return "\n".join(lint(prompt, CLIP, **fields).remarks)  # type: ignore[arg-type]


def pieces(report: Report) -> list[list[tuple[str, float]]]:
    """The first part's chunks at the first moment."""
    return [[(piece.text, piece.weight) for piece in chunk] for chunk in report.moments[0].parts[0].encoders[0].chunks]


def test_pieces_weights_and_chunks() -> None:
    report = lint("a (red:1.3) apple BREAK [tree]", CLIP)
    first, second = pieces(report)
    assert first == [("a</w>", 1.0), ("red</w>", 1.3), ("apple</w>", 1.0)]
    assert second == [("tree</w>", 1 / 1.1)]
    assert report.moments[0].steps == tuple(range(1, 26))
    assert (report.changes, report.remarks, report.pieced) == ((), (), ())
    assert report.moments[0].parts[0].encoders[0].chunks[0][0] == Piece("a</w>", 320, 1.0, True)


def test_edits_and_composition() -> None:
    report = lint("[a:b:0.5] AND [c|d]:0.5", CLIP, steps=4)
    assert report.changes == (2, 3, 4)
    assert [moment.steps for moment in report.moments] == [(1,), (2,), (3,), (4,)]
    assert [(part.weight, part.text) for part in report.moments[3].parts] == [(1.0, "b"), (0.5, " d")]
    again = lint("[c|d]", CLIP, steps=5).moments
    assert [moment.steps for moment in again] == [(1, 3, 5), (2, 4)]


def test_words_in_pieces() -> None:
    report = lint("hyperdetailed axolotls", CLIP)
    assert report.pieced == ("hyper·detailed", "ax·o·lot·ls")
    assert lint("a cat", CLIP).pieced == ()


def test_a_letter_of_several_bytes_is_not_parted() -> None:
    tokenizer = CLIP[0]
    ids = tokenizer.ids("🦩")
    assert len(ids) > 1
    [word] = words(piece_of(id, 1.0, tokenizer) for id in ids)
    assert spelling(word) == "🦩"
    assert len(word) == len(ids)


def test_a_special_token_is_a_word_of_its_own() -> None:
    """Where "!" is the padding, transformers reads it as that token, and so do we."""
    tokenizer = Tokenizer.clip(pad="!")
    pieces = [piece_of(id, 1.0, tokenizer) for id in tokenizer.ids("wow! cats")]
    assert [spelling(word) for word in words(pieces)] == ["wow", "!", "cats"]


def test_adapters() -> None:
    report = lint("a cat <lora:ink:0.8> <hypernet:x:1>", CLIP)
    assert [(each.name, each.unet) for each in report.adapters] == [("ink", 0.8), ("x", 1.0)]
    assert report.remarks == ("<hypernet:x> is no adapter; it is taken out, and nothing else is done",)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a (cat", "( never closed"),
        ("a cat)", ") closes nothing"),
        ("a cat]", "] closes nothing"),
        ("[(a:b:0.5]", "never closed"),
        ("a | b [c:d:0.5]", "keeps edits"),
        ("[a:b] x", "[a:b] is no edit"),
        ("[a:b:c:3] x", "[a:b:c:3] is no edit"),
        ("([(a:2) b:c])", "[ b:c] is no edit"),
        ("(a BREAK b)", "BREAK inside brackets"),
        ("a cat:1.2", "1.2 times the guidance"),
        ("a <|endoftext|> cat", "end it early"),
        ("(" * 8 + "a" + f":{'9' * 300})" * 8, "more than a number can hold"),
    ],
)
def test_what_is_odd_is_remarked(prompt: str, said: str) -> None:
    assert said in remarks(prompt)


@pytest.mark.parametrize("prompt", ["[a] [a:b:3] [a:3] [a|b] [(a:1.2)]", r"[a\:b] x", r"\[a:b\] x", "[((a:1.2):2)]"])
def test_what_is_well_formed_is_not_remarked(prompt: str) -> None:
    assert not remarks(prompt)


def test_brackets_of_later_steps_are_looked_at_too() -> None:
    assert "never closed" in remarks("[a:\\(b:0.5] (x") and "closes nothing" not in remarks("[a:b:0.5]")


def test_what_is_cut_is_shown_without_weighting() -> None:
    prompt = "(cat) " * 26 + "zebra"
    report = lint(prompt, CLIP, weighting="none")
    assert report.remarks == ("text_encoder reads 75 pieces; cut off: '( cat ) zebra'",)
    assert report.moments[0].parts[0].text == prompt
    assert "cut off" not in remarks(prompt)
    with pytest.raises(UsageError):
        lint("a", CLIP, weighting="x")


@given(prompt=st.text(max_size=30) | st.text("()[]:|\\ab AND<>_0.5", max_size=30), steps=st.integers(1, 4))
def test_any_text_can_be_looked_at(prompt: str, steps: int) -> None:
    report = lint(prompt, CLIP, steps=steps)
    assert sorted(step for moment in report.moments for step in moment.steps) == list(range(1, steps + 1))
    json.dumps(asdict(report))
