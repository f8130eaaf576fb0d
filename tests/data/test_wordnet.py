import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.data.wordnet import LEXNAMES, Synset, WordNet, parse_index, parse_synset

APPLE = (
    "07755101 13 n 02 apple 0 orchard_apple 0 003 @ 07721456 n 0000 ~ 07755619 n 0000 @i 07722217 n 0000 "
    '| fruit with red or yellow or green skin; "an apple a day"  '
)

lemmas = st.from_regex(r"[A-Za-z][A-Za-z0-9'./-]{0,10}(_[a-z]{1,6})?", fullmatch=True)
offsets = st.integers(0, 99_999_999).map("{:08d}".format)
pointers = st.tuples(st.sampled_from(["@", "@i", "~", "#m", "+", "-c"]), offsets)
glosses = st.text(st.characters(codec="ascii", exclude_categories=("C",)), max_size=60).map(str.strip)


def test_parse_synset_of_the_database():
    apple = parse_synset(APPLE)
    assert apple.offset == "07755101"
    assert apple.lexname == "food"
    assert apple.lemmas == ("apple", "orchard apple")
    assert apple.hypernyms == ("07721456", "07722217")
    assert apple.gloss.startswith("fruit with red")


@given(offsets, st.integers(3, 28), st.lists(lemmas, min_size=1, max_size=20), st.lists(pointers), glosses)
def test_parse_synset_reads_what_the_format_writes(offset, lex_file, words, links, gloss):
    written = " ".join(
        [
            offset,
            f"{lex_file:02d} n {len(words):02x}",
            *(f"{word} 0" for word in words),
            f"{len(links):03d}",
            *(f"{symbol} {target} n 0000" for symbol, target in links),
        ]
    )
    assert parse_synset(f"{written} | {gloss}  ") == Synset(
        offset=offset,
        lexname=LEXNAMES[lex_file],
        lemmas=tuple(word.replace("_", " ") for word in words),
        hypernyms=tuple(target for symbol, target in links if symbol in ("@", "@i")),
        gloss=gloss,
    )


@given(lemmas, st.lists(offsets, min_size=1, max_size=8), st.lists(st.sampled_from(["@", "~", "%p"]), max_size=4))
def test_parse_index_reads_what_the_format_writes(lemma, senses, symbols):
    count = len(senses)
    line = " ".join([lemma, "n", str(count), str(len(symbols)), *symbols, str(count), "0", *senses])
    assert parse_index(f"{line}  ") == (lemma.replace("_", " "), tuple(senses))


@pytest.mark.parametrize("line", ["", "07755101 13 n", "07755101 13 n 01 apple 0 002 @ 07721456 n 0000 | cut short"])
def test_parse_synset_refuses_a_broken_line(line):
    with pytest.raises(ValueError):
        parse_synset(line)


def test_lexnames_have_the_numbers_of_the_manual():
    numbers = {"animal": 5, "artifact": 6, "food": 13, "object": 17, "person": 18, "plant": 20, "time": 28}
    assert {name: LEXNAMES.index(name) for name in numbers} == numbers


def test_senses_come_in_the_order_of_the_index():
    club, animal = (Synset(offset, sort, ("bat",), (), "") for offset, sort in (("1", "artifact"), ("2", "animal")))
    wordnet = WordNet([animal, club], {"bat": ("1", "2")})
    assert wordnet.senses("Bat") == (club, animal)
    assert wordnet.senses("unknown") == ()
    assert "bat" in wordnet
    assert "ball" not in wordnet
