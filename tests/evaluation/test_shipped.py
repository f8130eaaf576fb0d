"""Judge B as it ships: small, above its own bar, and acquainted with all that evaluations ask for."""

from __future__ import annotations

from fromnoise.data.sources import PICTURE_SETS
from fromnoise.data.splits import judge_fold, settled, whole_group
from fromnoise.evaluation.prompts import HELD_OUT, TRAINED, reworded
from fromnoise.evaluation.reference import is_prepared, load_reference
from fromnoise.runtime.paths import JUDGE
from fromnoise.training.judging import load_judge


def test_it_finds_four_of_five_real_pictures_that_it_never_saw() -> None:
    assert is_prepared(JUDGE)
    ceiling = load_reference().ceiling
    assert ceiling.n > 700
    assert ceiling.top5 / ceiling.n >= 0.8


def test_its_folder_is_at_most_six_megabytes() -> None:
    assert sum(path.stat().st_size for path in JUDGE.iterdir()) <= 6_000_000


def test_it_knows_what_is_asked_for_and_recognises_the_held_out_pictures_that_ship_with_it() -> None:
    judge, reference = load_judge(JUDGE), load_reference()
    asked = reference.asking(HELD_OUT)
    assert all(each.concept in judge.index for each in [*reworded(), *asked, *reference.asking(TRAINED)])
    assert len(asked) == len(reference.held_out)
    some = slice(24)
    found = judge.verdicts(
        judge.read(reference.held_out[some]),
        [each.concept for each in asked[some]],
        [each.style for each in asked[some]],
    )
    assert float(found.top5.float().mean()) > 0.8
    assert float(found.style.float().mean()) > 0.7


def test_the_settled_split_is_the_one_that_it_was_made_by() -> None:
    reference, known = load_reference(), settled()
    families = {each.style: each.family for each in PICTURE_SETS}
    assert {each.concept for each in reference.prompts} == set(known)
    for each, unseen in zip(reference.prompts, reference.unseen.tolist(), strict=True):
        group = whole_group(each.concept, families[each.style or ""])
        assert (each.kind == HELD_OUT) == (known[each.concept].held == group)
        assert unseen == (judge_fold(each.concept, group) == "test")
