import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.data.captions import (
    MAX_WORDS,
    Vocabulary,
    captions,
    clean,
    fold_plural,
    in_style,
    short_gloss,
    with_article,
    words,
)
from fromnoise.data.sources import PICTURE_SETS

APPLE = Vocabulary(
    label="red apple",
    synonyms=("orchard apple",),
    kinds=("edible fruit", "pome"),
    gloss="fruit with red or yellow or green skin",
    tags=("fruit", "health", "food", "diet"),
)
NOTO = PICTURE_SETS[0]
phrases = st.from_regex(r"[a-z]{3,8}( [a-z]{3,8}){0,2}", fullmatch=True)
vocabularies = st.builds(
    Vocabulary,
    label=phrases,
    synonyms=st.lists(phrases, max_size=3).map(tuple),
    kinds=st.lists(phrases, max_size=2).map(tuple),
    gloss=st.none() | phrases,
    tags=st.lists(phrases, max_size=8).map(tuple),
)


def styled(caption, style):
    return any(name in caption for name in (*style.style_names, *style.style_looks))


@given(vocabularies, st.sampled_from(PICTURE_SETS), st.text(max_size=10))
def test_captions_are_distinct_clean_and_short(said, style, picture_id):
    found = captions(picture_id, said, style, frozenset())
    assert len(found) == len(set(found)) >= 8
    assert all(re.fullmatch(r"[a-z0-9,' -]+", each) and len(words(each)) <= MAX_WORDS for each in found)
    assert found == captions(picture_id, said, style, frozenset())


@pytest.mark.parametrize("style", PICTURE_SETS, ids=lambda style: style.style)
def test_a_third_is_without_a_style_and_styles_are_named_and_described(style):
    found = [each for n in range(20) for each in captions(f"{style.style}/{n}", APPLE, style, frozenset())]
    assert sum(not styled(each, style) for each in found) / len(found) == pytest.approx(1 / 3, abs=0.03)
    assert all(any(name in each for each in found) for name in (*style.style_names, *style.style_looks))
    starts = sum(each.startswith((*style.style_names, *style.style_looks)) for each in found)
    assert 0 < starts < len(found) / 2


def test_captions_say_label_synonym_kind_gloss_and_tags():
    found = " | ".join(each for n in range(10) for each in captions(str(n), APPLE, NOTO, frozenset()))
    for said in ("a red apple", "an orchard apple", "a kind of edible fruit", "yellow or green skin", "diet"):
        assert said in found


@given(vocabularies, st.data())
def test_no_caption_holds_a_reserved_word(said, data):
    word = data.draw(st.sampled_from(words(said.label)))
    found = captions("id", said, NOTO, frozenset({fold_plural(word)}))
    assert not any(fold_plural(each) == fold_plural(word) for caption in found for each in words(caption))


def test_reserved_words_are_dropped_in_singular_and_plural_and_only_whole():
    said = Vocabulary("ant", tags=("acorns", "plant", "boxes"))
    found = " ".join(captions("id", said, NOTO, frozenset({"acorn", "box", "pl"})))
    assert "acorn" not in found
    assert "box" not in found
    assert "plant" in found


@pytest.mark.parametrize(
    ("plural", "singular"),
    [("apples", "apple"), ("berries", "berry"), ("boxes", "box"), ("buses", "bus"), ("glass", "glass"), ("bus", "bus")],
)
def test_fold_plural(plural, singular):
    assert fold_plural(plural) == singular


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("red apple", "a red apple"),
        ("octopus", "an octopus"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("french fries", "french fries"),
        ("cooked rice", "cooked rice"),
        ("grinning face with big eyes", "a grinning face with big eyes"),
        ("Statue of Liberty", "Statue of Liberty"),
    ],
)
def test_with_article(phrase, expected):
    assert with_article(phrase) == expected


def test_clean_folds_to_plain_ascii():
    assert clean("Piñata’s “best” ,  day!") == "pinata's best, day"


@given(st.text())
def test_clean_is_idempotent(text):
    assert clean(clean(text)) == clean(text)


def test_short_gloss_leaves_out_asides_and_loose_ends():
    assert short_gloss('(botany) a green plant; "nice plants"') == "a green plant"
    gloss = short_gloss("one two three four five six seven eight nine ten eleven twelve thirteen of the rest")
    assert gloss.endswith("thirteen")


@given(phrases, st.sampled_from(PICTURE_SETS), st.floats(0, 1, exclude_max=True))
def test_a_phrase_in_a_style_says_both(phrase, style, chance):
    said = in_style(phrase, style, chance)
    assert phrase in said
    assert styled(said, style)


def test_every_name_and_look_of_a_style_is_said():
    said = {in_style("an apple", NOTO, place / 100) for place in range(100)}
    assert len(said) == 24
    assert all(any(name in each for each in said) for name in (*NOTO.style_names, *NOTO.style_looks))
