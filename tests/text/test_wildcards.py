"""Wildcards and choices: what is chosen, from where, and that it is chosen again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.runtime.errors import UsageError
from fromnoise.text.wildcards import MAX_CHOICES, Choice, pick, resolve, split_choices


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "animals").mkdir()
    (tmp_path / "animal.txt").write_text("# four legs\n cat \n\n__animals/dog__\n{red|grey} fox\n", encoding="utf-8")
    (tmp_path / "animals" / "dog.txt").write_text("\ufeffpoodle\nbeagle", encoding="utf-8")
    (tmp_path / "one.txt").write_text("naïve art\n", encoding="utf-8")
    return tmp_path


def texts(prompt: str, folder: Path | None = None, seeds: int = 60) -> Counter[str]:
    return Counter(resolve(prompt, seed, folder).text for seed in range(seeds))


def test_every_line_is_chosen_some_time(folder: Path) -> None:
    assert set(texts("a __animal__!", folder)) == {"a cat!", "a poodle!", "a beagle!", "a red fox!", "a grey fox!"}
    assert set(texts("__animals/dog__", folder)) == {"poodle", "beagle"}
    assert set(texts("{red|green|} apple")) == {"red apple", "green apple", " apple"}
    assert set(texts("{a {b|c}|{d|e}}")) == {"a b", "a c", "d", "e"}


def test_an_alternation_is_one_choice() -> None:
    assert set(texts("{red|[a|b]} x")) == {"red x", "[a|b] x"}
    assert set(texts("{[a|[b|{c|d}]]|[e:f:3]}")) == {"[a|[b|c]]", "[a|[b|d]]", "[e:f:3]"}
    assert set(texts(r"{red|\[a|b\]}")) == {"red", r"\[a", r"b\]"}
    assert set(texts("{[a|b} {c|d]}")) == {"[a c", "[a d]", "b c", "b d]"}  # never closed, closing nothing


def test_choices_are_even() -> None:
    counts = texts("{a|b|c|d}", seeds=4000)
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_places_choose_for_themselves(folder: Path) -> None:
    assert len(texts("__animals/dog__ __animals/dog__ {a|b} {a|b}", folder, 200)) == 16


def test_the_same_seed_chooses_the_same(folder: Path) -> None:
    """Worked out once: what it chooses must never change, or old prompts would not replay."""
    prompt = "{a|b|c|d|e|f|g|h} __animal__ {0|1|2|3|4|5|6|7|8|9}"
    assert [resolve(prompt, seed, folder).text for seed in (0, 1, 2**63)] == ["b poodle 1", "f poodle 6", "d beagle 2"]


def test_words_before_change_nothing(folder: Path) -> None:
    for seed in range(9):
        chosen = resolve("__animal__", seed, folder).text
        assert resolve("a very long prompt, __animal__", seed, folder).text == f"a very long prompt, {chosen}"


def test_what_was_chosen_is_told(folder: Path) -> None:
    resolved = resolve("{a __one__|a __one__} in {x|x}", 3, folder)
    assert resolved.text == "a naïve art in x"
    assert resolved.choices == (
        Choice("{a __one__|a __one__}", "a naïve art"),
        Choice("__one__", "naïve art"),
        Choice("{x|x}", "x"),
    )


@pytest.mark.parametrize(
    "prompt", ["{red}", "{", "}", "{a|b", "a|b}", r"\{a|b\}", "__", "____", "__ a __", "__a", "snake_case", r"\__one__"]
)
def test_what_is_no_choice_is_text(prompt: str, folder: Path) -> None:
    assert resolve(prompt, 0, folder).text == prompt
    assert resolve(prompt, 0, folder).choices == ()


def test_without_a_folder_names_are_text() -> None:
    assert resolve("an __animal__", 0).text == "an __animal__"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a", "__b__", "a > b > c > b"),
        ("aminal", None, "did you mean __animal__"),
        ("zzz", None, "there are 6: a, animal, animals/dog"),
        ("b", "# nothing\n\n", "no line"),
        ("a", b"\xff\xfe\xfa", "UTF-8"),
        ("a", "__a__", "a > a"),
    ],
)
def test_bad_files_are_named(folder: Path, name: str, text: str | bytes | None, message: str) -> None:
    for other, line in (("a", "x"), ("b", "__c__"), ("c", "__b__")):
        (folder / f"{other}.txt").write_text(line)
    if isinstance(text, bytes):
        (folder / f"{name}.txt").write_bytes(text)
    elif text is not None:
        (folder / f"{name}.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        resolve(f"__{name}__", 0, folder)


def test_a_name_stays_in_its_folder(folder: Path) -> None:
    for name in ("__../animal__", "__/etc/passwd__", "__animals/../animal__"):
        assert resolve(name, 0, folder / "animals").text == name


def test_too_many_choices_are_refused(folder: Path) -> None:
    for number in range(20):
        (folder / f"n{number}.txt").write_text(f"__n{number + 1}__ __n{number + 1}__")
    (folder / "n20.txt").write_text("x")
    with pytest.raises(UsageError, match=str(MAX_CHOICES)):
        resolve("__n0__", 0, folder)


@given(text=st.text("{}|[]\\_ab", max_size=40), seed=st.integers(0, 2**64 - 1))
def test_any_text_resolves(text: str, seed: int) -> None:
    assert resolve(text, seed) == resolve(text, seed)


def test_long_texts_are_quick() -> None:
    assert resolve("{" * 8000, 0).text == "{" * 8000
    assert split_choices("{a|{b|c}}", 0) == (9, ["a", "{b|c}"])
    assert {pick(seed, (0,), 3) for seed in range(20)} == {0, 1, 2}
