"""What a prompt says at each step: hand-worked values, and properties that hold for any text."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.text.brackets import Span
from fromnoise.text.grammar import Adapter, Alternate, Edit, Part, Prompt, later, literal, parse, read_edits, unparse

GROUPS = ["[a:b:2]", "[c|d]", "[x:.5]", "(e:1.3)", ":0.5]", "::2]", " AND ", "AND", ":1.2", "<lora:f:0.8>", "BREAK"]
WORDS_BETWEEN = ["a", "b c", " ", "\n", "é", "1.0", " 3 ", "-1", "1e-1", "<", ">"]
MARKS = st.sampled_from([*"()[]:\\|", *GROUPS, *WORDS_BETWEEN])
TEXTS = st.one_of(st.text(max_size=30), st.lists(MARKS, max_size=16).map("".join))


def said(prompt: str, steps: int = 10) -> list[tuple[int, str]]:
    """What holds from which step on, as the one part's text."""
    tree = parse(prompt)
    texts = [tree.parts[0].text(step, steps) for step in range(steps)]
    return [(step, text) for step, text in enumerate(texts) if step == 0 or texts[step - 1] != text]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a wolf", [(0, "a wolf")]),
        ("a [wolf:fox:4] here", [(0, "a wolf here"), (4, "a fox here")]),
        ("a [wolf:fox:0.25]", [(0, "a wolf"), (2, "a fox")]),
        ("a [wolf:fox:.5]", [(0, "a wolf"), (5, "a fox")]),
        ("a [fox:4]", [(0, "a "), (4, "a fox")]),
        ("a [wolf::4]", [(0, "a wolf"), (4, "a ")]),
        ("a [wolf:fox: 4 ]", [(0, "a wolf"), (4, "a fox")]),
        ("a [wolf : fox :4]", [(0, "a wolf "), (4, "a  fox ")]),
        ("[wolf:fox:0]", [(0, "fox")]),
        ("[wolf:fox:-3]", [(0, "fox")]),
        ("[wolf:fox:1.0]", [(0, "wolf")]),
        ("[wolf:fox:99]", [(0, "wolf")]),
        ("[wolf:fox:1e-1]", [(0, "fox")]),
        ("[a:[b:c:6]:3]", [(0, "a"), (3, "b"), (6, "c")]),
        ("[(a:1.2):b:3]", [(0, "(a:1.2)"), (3, "b")]),
        ("([a:b:3]:1.3)", [(0, "(a:1.3)"), (3, "(b:1.3)")]),
        ("(a:1.[2:4:3])", [(0, "(a:1.2)"), (3, "(a:1.4)")]),
        ("style: [a:b:3]", [(0, "style: a"), (3, "style: b")]),
        (r"[a\:b:3]", [(0, ""), (3, r"a\:b")]),
        (r"\[a:b:3]", [(0, r"\[a:b:3]")]),
    ],
)
def test_edits(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert said(prompt) == expected


def test_alternation_changes_every_step() -> None:
    assert [text for _, text in said("[a|b]", 4)] == ["a", "b", "a", "b"]
    assert [text for _, text in said("[fe|]male", 3)] == ["female", "male", "female"]
    assert [text for _, text in said("[a|b|(c:1.3)] d", 4)] == ["a d", "b d", "(c:1.3) d", "a d"]
    assert said("[a|[b:c:5]]", 8)[-1] == (7, "c")


@pytest.mark.parametrize(
    "prompt",
    [
        "a [wolf",
        "a] b",
        "[a]",
        "[a:b]",
        "[a:b:c]",
        "[a:b:c:3]",
        "[a:(b:3]",
        "[a:[b:c]:3]",
        "[a:b:3x]",
        "[:]",
        "([a:b])",
    ],
)
def test_what_is_no_edit_is_text(prompt: str) -> None:
    assert said(prompt) == [(0, prompt)]


@pytest.mark.parametrize("prompt", ["a | b [c:d:3]", "(a|b) [c:d:3]", "[a:b|c:3] [c:d:3]", "[c:d:3] \\"])
def test_a_stray_bar_or_backslash_switches_edits_off(prompt: str) -> None:
    """As in the web UI, whose grammar has no place for them."""
    assert read_edits(prompt) is None
    assert said(prompt) == [(0, prompt)]


def test_brackets_left_open_keep_the_edits_inside() -> None:
    assert said("((a [b:c:3] d") == [(0, "((a b d"), (3, "((a c d")]
    assert said("a) [b:c:3], [d") == [(0, "a) b, [d"), (3, "a) c, [d")]


def test_the_tree() -> None:
    tree = parse("a [b:[c|d]:0.5]<lora:ink:0.8> AND e :.5")
    edit = Edit(("b",), (Alternate((("c",), ("d",))),), 0.5)
    assert tree == Prompt((Part(1.0, ("a ", edit)), Part(0.5, (" e",))), (Adapter("lora", "ink", 0.8, 0.8),))
    assert hash(tree) == hash(parse(unparse(tree)))
    assert tree.changes(4) == (2, 3)


def test_and_composes() -> None:
    tree = parse("a (wolf:1.2) AND a fox :-0.5 AND snow:2")
    first, second, third = tree.at(0, 10)
    assert [each.weight for each in (first, second, third)] == [1.0, -0.5, 2.0]
    assert first.sections == ((Span("a "), Span("wolf", 1.2)),)
    assert second.spans == (Span(" a fox"),)
    assert [part.weight for part in parse("BAND and ANDY").parts] == [1.0]
    assert len(parse("a AND b", compose=False).parts) == 1
    assert parse("a:1.2", compose=False).parts[0].weight == 1.0


def test_a_number_at_the_end_weighs_the_part() -> None:
    assert parse("a wolf:1.2").parts == (Part(1.2, ("a wolf",)),)
    assert parse("a wolf\n : 2. \n").parts == (Part(2.0, ("a wolf",)),)
    assert parse("(a wolf:1.2)").parts[0].weight == 1.0
    assert parse("at 12:30").parts == (Part(30.0, ("at 12",)),)


@pytest.mark.parametrize(
    ("tag", "adapter"),
    [
        ("<lora:ink>", Adapter("lora", "ink", 1.0, 1.0)),
        ("<lora:ink:0.8>", Adapter("lora", "ink", 0.8, 0.8)),
        ("<lora:ink:0.8:-0.5>", Adapter("lora", "ink", 0.8, -0.5)),
        ("<lora:my ink.v2:te=0.3:unet=0.6>", Adapter("lora", "my ink.v2", 0.3, 0.6)),
        ("<lora:ink:strong>", Adapter("lora", "ink", 1.0, 1.0)),
        ("<lora:ink:inf>", Adapter("lora", "ink", 1.0, 1.0)),
        ("<hypernet:ink:0.8>", Adapter("hypernet", "ink", 0.8, 0.8)),
    ],
)
def test_tags_are_taken_out(tag: str, adapter: Adapter) -> None:
    tree = parse(f"a {tag}wolf")
    assert tree.adapters == (adapter,)
    assert said(f"a {tag}wolf") == [(0, "a wolf")]


def test_what_is_no_tag_stays() -> None:
    for text in ("a < b", "<3", "<lora:>", "<:x>", "<lora>"):
        assert parse(text).adapters == ()
        assert said(text) == [(0, text)]


def test_without_grammar_all_of_it_is_words() -> None:
    text = "a (wolf:1.2) AND [b:c:3] BREAK <lora:x:1> :2"
    [composed] = literal(text).at(0, 10)
    assert composed.weight == 1.0
    assert composed.sections == ((Span(text),),)


@given(text=TEXTS, steps=st.integers(1, 5))
def test_any_text_is_a_prompt(text: str, steps: int) -> None:
    tree = parse(text)
    for step in range(steps):
        assert len(tree.at(step, steps)) == len(tree.parts) >= 1
    assert all(0 < step < steps for step in tree.changes(steps))


@given(text=TEXTS)
def test_what_is_written_is_read_the_same(text: str) -> None:
    tree = parse(text)
    assert parse(unparse(tree)) == tree


WORDS = st.text("ab ,é", min_size=1, max_size=6)
SHARES = st.floats(0, 1) | st.integers(0, 12)


def nodes_of(inner: st.SearchStrategy[tuple]) -> st.SearchStrategy[tuple]:
    edits = st.builds(Edit, inner, inner, SHARES)
    alternations = st.lists(inner, min_size=2, max_size=3).map(lambda each: Alternate(tuple(each)))
    return st.tuples(edits | alternations) | st.tuples(WORDS, edits | alternations, WORDS)


TREES = st.recursive(st.tuples(WORDS) | st.just(()), nodes_of, max_leaves=8)


@given(nodes=TREES, step=st.integers(0, 12))
def test_a_tree_that_is_written_says_the_same(nodes: tuple, step: int) -> None:
    part = Part(1.0, nodes)
    [read] = parse(unparse(Prompt((part,))), compose=False).parts
    assert read.text(step, 13) == part.text(step, 13)


@given(share=st.floats(0, 1), steps=st.integers(1, 150))
def test_a_share_of_the_steps(share: float, steps: int) -> None:
    edit = Edit(("a",), ("b",), share)
    assert sum(edit.chosen(step, steps) == ("a",) for step in range(steps)) == int(share * steps)


def test_deep_and_long_texts_are_quick() -> None:
    for text in (
        "[" * 8000,
        "(" * 4000 + ")" * 4000,
        "[" * 2000 + ":1]" * 2000,
        "[a|" * 2000,
        "<a:" * 2000,
        "{" * 8000,
    ):
        assert parse(text) == parse(unparse(parse(text)))


def test_it_needs_no_torch() -> None:
    code = "import sys; import fromnoise.text.grammar, fromnoise.text.wildcards; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a [b:.5] c", [(0, "a b c")]),
        ("a [b:1.5] c", [(0, "a  c"), (5, "a b c")]),
        ("a [b:c:13]", [(0, "a b"), (3, "a c")]),
        ("a [b:c:9]", [(0, "a c")]),
        ("a [[b:c:1.2]:d:.9]", [(0, "a d")]),
        ("a [[b:c:1.25]:d:1.75]", [(0, "a b"), (2, "a c"), (7, "a d")]),
    ],
)
def test_a_second_pass_counts_on(prompt: str, expected: list[tuple[int, str]]):
    """The first two are the web UI's own examples, of ten steps after ten."""
    assert said(unparse(later(parse(prompt), 10))) == expected


@given(TEXTS, st.integers(1, 50), st.integers(1, 20))
def test_what_is_said_later_is_what_a_longer_drawing_says_at_last(text: str, done: int, more: int):
    """Where steps are counted in whole numbers."""
    tree = parse(text)
    moved = parse(unparse(later(tree, done)))
    assert len(moved.parts) == len(tree.parts)
    assert moved.adapters == tree.adapters
    if not any(isinstance(node, Alternate) or isinstance(getattr(node, "when", 0), float) for node in _nodes(tree)):
        assert [each.text(more, 99) for each in moved.parts] == [each.text(done + more, 9999) for each in tree.parts]


def _nodes(tree: Prompt) -> list[object]:
    """Every node of a prompt, those inside others too."""
    found: list[object] = [node for part in tree.parts for node in part.nodes]
    for node in found:
        found += [*getattr(node, "before", ()), *getattr(node, "after", ())]
        found += [each for option in getattr(node, "options", ()) for each in option]
    return found
