from hypothesis import given
from hypothesis import strategies as st

from fromnoise.data import splits
from fromnoise.data.splits import (
    HELD_OUT_SHARE,
    JUDGE_TEST_SHARE,
    Held,
    Settled,
    fraction,
    held_out,
    judge_fold,
    settled,
    whole_group,
)

families = st.sets(st.sampled_from(["noto", "twemoji", "fluent", "emojione", "fxemoji+noto-v1"]), min_size=1)


def test_fraction_is_the_same_on_every_machine():
    assert fraction("held out", "1f34e") == 0x671502CE00A314E1 / 2**64
    assert fraction("a", "bc") != fraction("ab", "c")


@given(st.dictionaries(st.from_regex(r"e[0-9a-f]{4}", fullmatch=True), families, min_size=1, max_size=60))
def test_a_held_out_concept_loses_one_group_and_keeps_two(groups):
    held = held_out(groups, groups)
    assert len({each.concept for each in held}) == len(held)
    assert all(each.group in groups[each.concept] and len(groups[each.concept]) >= 3 for each in held)


def test_the_shares_are_near_what_is_declared():
    concepts = [f"e{n:x}" for n in range(4000)]
    held = held_out({each: {"noto", "twemoji", "fluent"} for each in concepts}, concepts)
    assert abs(len(held) / len(concepts) - HELD_OUT_SHARE) < 0.02
    tests = sum(judge_fold(each, "fluent") == "test" for each in concepts)
    assert abs(tests / len(concepts) - JUDGE_TEST_SHARE) < 0.02


def test_every_family_is_held_out_for_some_concept():
    concepts = [f"e{n:x}" for n in range(4000)]
    names = {"noto", "twemoji", "fluent"}
    assert {each.group for each in held_out(dict.fromkeys(concepts, names), concepts)} == names


def test_the_two_splits_are_independent():
    concepts = [f"e{n:x}" for n in range(8000)]
    held = held_out({each: {"noto", "twemoji", "fluent"} for each in concepts}, concepts)
    tests = [judge_fold(each.concept, each.group) == "test" for each in held]
    assert 0.05 < sum(tests) / len(tests) < 0.16


def test_what_is_settled_holds_whichever_sets_arrived(monkeypatch):
    known = {"1f34e": Settled(("fluent+noto+twemoji",), "fxemoji"), "1f987": Settled((), None)}
    monkeypatch.setattr(splits, "settled", lambda: known)
    for groups in ({"fxemoji"}, {"fluent", "fxemoji", "noto", "twemoji"}):
        assert held_out({"1f34e": groups, "1f987": groups}, ["1f34e", "1f987"]) == {Held("1f34e", "fxemoji")}
    assert {whole_group("1f34e", each) for each in ("noto", "fluent", "fluent+twemoji")} == {"fluent+noto+twemoji"}
    assert whole_group("1f34e", "fxemoji") == whole_group("1f987", "fxemoji") == "fxemoji"


def test_of_each_settled_concept_at_most_one_group_is_held_out():
    known = settled()
    assert len(known) == 1020
    assert sum(each.held is not None for each in known.values()) == 77
    assert all("+" not in each.held or each.held in each.joined for each in known.values() if each.held)
