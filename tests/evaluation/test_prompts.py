from __future__ import annotations

import torch

from fromnoise.data import Dataset
from fromnoise.evaluation.prompts import HELD_OUT, REWORDED, TRAINED, pair, pairs, reworded, sample
from fromnoise.runtime.seeds import generator


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


def test_a_prompt_that_two_real_pictures_have_is_sampled_once_and_moves_no_other() -> None:
    asked = [pair(f"{n:x}", f"thing {n}", "noto", TRAINED) for n in range(40)]
    order = torch.randperm(40, generator=generator("prompts", 3)).tolist()
    assert sample(asked, 10, seed=3) == [asked[n] for n in sorted(order[:10])]
    asked[order[1]] = asked[order[0]]
    assert set(sample(asked, 10, seed=3)) == {asked[n] for n in (order[0], *order[2:11])}
    assert len(sample(asked, 10, seed=3)) == 10
    assert len(sample(asked, None, 0)) == 39
