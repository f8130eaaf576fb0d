import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.data.codepoints import characters, normalise, slug, squash

code_points = st.lists(st.integers(0x21, 0x1FAFF).filter(lambda n: n != 0xFE0F), min_size=1, max_size=5)


@given(code_points, st.sampled_from("-_ "), st.booleans(), st.booleans())
def test_normalise_has_one_spelling(numbers, separator, upper, padded):
    parts = [f"{n:06X}" if padded else f"{n:X}" for n in numbers]
    text = separator.join(parts)
    assert normalise(text if upper else text.lower()) == "-".join(f"{n:x}" for n in numbers)


@given(code_points, st.integers(0, 5))
def test_normalise_drops_variation_selectors(numbers, position):
    parts = [f"{n:x}" for n in numbers]
    assert normalise("-".join([*parts[:position], "fe0f", *parts[position:]])) == "-".join(parts)


@given(code_points)
def test_characters_spell_the_sequence(numbers):
    assert characters("-".join(f"{n:x}" for n in numbers)) == "".join(map(chr, numbers))


@pytest.mark.parametrize("text", ["", "1f34e-", "apple", "1f34e--fe0f"])
def test_normalise_refuses_what_is_no_sequence(text):
    with pytest.raises(ValueError):
        normalise(text)


def test_slug_and_squash_as_icon_files_spell_names():
    assert slug("T-Rex") == "t-rex"
    assert slug("man’s shoe") == "mans-shoe"
    assert slug("three o’clock") == "three-oclock"
    assert squash("Red Apple") == squash("red-apple") == squash("redapple") == "redapple"
