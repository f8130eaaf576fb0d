from __future__ import annotations

from fromnoise.data import Dataset
from fromnoise.evaluation.prompts import HELD_OUT, REWORDED, pair, pairs, reworded, sample


def test_pairs_are_asked_for_in_the_words_of_captions() -> None:
    assert pair("1f34e", "apple", "noto", HELD_OUT).text == "an apple, noto style"
    assert pair("1f422", "turtle", "fluent-3d", HELD_OUT).text == "a turtle, fluent 3d style"


def test_every_real_picture_has_a_prompt_of_its_split(dataset: Dataset) -> None:
    asked = pairs(dataset.pictures)
    assert [each.concept for each in asked] == [each.concept for each in dataset.pictures]
    assert [(each.label, each.style) for each in asked if each.kind == HELD_OUT] == [("ink", "twemoji")]


def test_the_reworded_prompts_are_200_and_name_no_style() -> None:
    asked = reworded()
    assert len({each.text for each in asked}) == 200
    assert {(each.kind, each.style) for each in asked} == {(REWORDED, None)}


def test_a_sample_is_drawn_by_seed_and_holds_none_twice() -> None:
    asked = reworded()
    some = sample(asked, 50, seed=1)
    assert len(set(some)) == 50
    assert some == sample(asked, 50, seed=1) != sample(asked, 50, seed=2)
    assert sample(asked, None, 0) == sample(asked, 999, 0) == asked
