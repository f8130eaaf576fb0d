"""What brackets weigh: hand-worked values, and properties that hold for any text."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.text.brackets import LESS, MORE, Section, Span, plain_number, spell, weigh

MARKS = st.sampled_from([*"()[]:\\|", ":1.3)", ":-.5)", " BREAK ", "BREAK", "a", "b c", " ", ",", "naïve", "\n"])
TEXTS = st.one_of(st.text(max_size=30), st.lists(MARKS, max_size=16).map("".join))


def weights(text: str) -> list[tuple[str, float]]:
    [section] = weigh(text).sections
    return [(span.text, span.weight) for span in section]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a wolf", [("a wolf", 1)]),
        ("a (wolf) here", [("a ", 1), ("wolf", MORE), (" here", 1)]),
        ("a [wolf]", [("a ", 1), ("wolf", LESS)]),
        ("(wolf:1.3)", [("wolf", 1.3)]),
        ("(wolf: 1.3 )", [("wolf", 1.3)]),
        ("(wolf:-1)", [("wolf", -1)]),
        ("(wolf:+.5)", [("wolf", 0.5)]),
        ("((wolf))", [("wolf", MORE * MORE)]),
        ("((wolf:1.3) x)", [("wolf", 1.3 * MORE), (" x", MORE)]),
        ("(a [b] c)", [("a ", MORE), ("b", LESS * MORE), (" c", MORE)]),
        (r"\(wolf\) \[x\] \\", [(r"(wolf) [x] " + "\\", 1)]),
        (r"a \wolf", [("a wolf", 1)]),
        ("(a)(b)", [("ab", MORE)]),
        ("(a:b)", [("a:b", MORE)]),
        ("a:1.3", [("a:1.3", 1)]),
        ("", []),
        ("()", []),
    ],
)
def test_weights(text: str, expected: list[tuple[str, float]]) -> None:
    assert weights(text) == expected
    assert (weigh(text).unclosed, weigh(text).stray) == ("", "")


@pytest.mark.parametrize(
    ("text", "expected", "unclosed", "stray"),
    [
        ("a (wolf", [("a ", 1), ("wolf", MORE)], "(", ""),
        ("a [(wolf", [("a wolf", 1)], "([", ""),
        ("a [wolf", [("a ", 1), ("wolf", LESS)], "[", ""),
        ("wolf) x", [("wolf) x", 1)], "", ")"),
        ("wolf]", [("wolf]", 1)], "", "]"),
        ("wolf:1.3)", [("wolf:1.3)", 1)], "", ")"),
        ("([a)b]", [("a", MORE * LESS), ("b", LESS)], "", ""),
        ("(a:1.2.3)", [("a:1.2.3", MORE)], "", ""),
        ("(a:.)", [("a:.", MORE)], "", ""),
        (f"(a:{'9' * 400})", [(f"a:{'9' * 400}", MORE)], "", ""),
    ],
)
def test_malformed_text_is_still_text(text: str, expected: list[tuple[str, float]], unclosed: str, stray: str) -> None:
    assert weights(text) == expected
    assert (weigh(text).unclosed, weigh(text).stray) == (unclosed, stray)


def test_break_begins_a_section() -> None:
    weighed = weigh("a  BREAK  (b BREAK c:1.5) BREAKER")
    assert weighed.sections == ((Span("a"),), (Span("b", 1.5),), (Span("c", 1.5), Span(" BREAKER")))
    assert weighed.break_inside
    assert not weigh("(a) BREAK (b)").break_inside
    assert weigh("BREAK a BREAK BREAK").sections == ((), (Span("a"),), (), ())


@given(depth=st.integers(0, 30), more=st.integers(0, 30))
def test_nested_brackets_multiply(depth: int, more: int) -> None:
    [(_, weight)] = weights("(" * more + "[" * depth + "wolf" + "]" * depth + ")" * more)
    assert math.isclose(weight, 1.1 ** (more - depth), rel_tol=1e-12)


@given(factors=st.lists(st.floats(-9, 9).map(lambda each: round(each, 3)), max_size=6))
def test_numbers_multiply(factors: list[float]) -> None:
    text = "(" * len(factors) + "wolf" + "".join(f":{plain_number(each)})" for each in factors)
    [(_, weight)] = weights(text)
    assert math.isclose(weight, math.prod(factors), rel_tol=1e-12, abs_tol=1e-300)


@given(text=TEXTS)
def test_any_text_is_weighed_and_nothing_but_marks_is_lost(text: str) -> None:
    weighed = weigh(text)
    said = "".join(span.text for section in weighed.sections for span in section)
    kept = iter(text)
    assert all(letter in kept for letter in said)
    if not set(text) & set("()[]\\") and "BREAK" not in text:
        assert said == text


WORDS = st.text("ab ,()[]\\:|.1BREAK\n", min_size=1, max_size=12)
NUMBERS = st.floats(-1e6, 1e6).filter(lambda each: each != 0 or math.copysign(1, each) > 0)


def of_different_weights(spans: list[Span]) -> bool:
    """Neighbours of one weight would be one span."""
    return all(one.weight != other.weight for one, other in itertools.pairwise(spans))


SECTION = st.lists(st.builds(Span, WORDS, NUMBERS), max_size=4).filter(of_different_weights).map(tuple)


@given(sections=st.lists(SECTION, min_size=1, max_size=3).map(tuple))
def test_what_is_spelled_is_weighed_the_same(sections: tuple[Section, ...]) -> None:
    assert weigh(spell(sections)).sections == sections


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_plain_number_is_the_number(value: float) -> None:
    assert float(plain_number(value)) == value
    assert "e" not in plain_number(value).lower()


def test_deep_and_long_texts_are_quick() -> None:
    assert weights("(" * 4000 + ")" * 4000) == []
    assert len(weigh("(a" * 2000).sections[0]) == 2000
