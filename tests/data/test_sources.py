import base64
from importlib.resources import files

import pytest

from fromnoise.data.codepoints import normalise
from fromnoise.data.drawings import READERS
from fromnoise.data.sources import PICTURE_SETS, WORD_LISTS

PERMISSIVE = {"Apache-2.0", "MIT", "CC-BY-4.0", "WordNet", "MIT, Unicode-3.0"}
PACKAGES = [*(each.package for each in PICTURE_SETS), *WORD_LISTS.values()]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_packages_are_pinned_and_permissive(package):
    algorithm, _, digest = package.integrity.partition("-")
    assert (algorithm, len(base64.b64decode(digest))) == ("sha512", 64)
    assert package.licence in PERMISSIVE
    assert package.author
    assert package.link.startswith("https://")


def test_styles_are_told_apart():
    assert len({each.style for each in PICTURE_SETS}) == len(PICTURE_SETS)
    called = [name for each in PICTURE_SETS for name in (*each.style_names, *each.style_looks)]
    assert len(called) == len(set(called))
    assert all(each.reader in READERS and each.attribution for each in PICTURE_SETS)


def test_the_three_renderings_of_fluent_are_one_family():
    assert {each.style for each in PICTURE_SETS if each.family == "fluent"} == {"fluent", "fluent-flat", "fluent-3d"}


def rows(name):
    lines = files("fromnoise.data").joinpath(name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def test_hand_made_tables_are_well_formed():
    names = rows("names.tsv")
    assert len({tuple(row[:2]) for row in names}) == len(names)
    assert {row[0] for row in names} <= {each.style for each in PICTURE_SETS}
    assert all(points == "-" or normalise(points) == points for _, _, points in names)
    senses = rows("senses.tsv")
    assert len({row[0] for row in senses}) == len(senses)
    assert all(normalise(points) == points for points, _, _ in senses)
    assert all(said == "-" or said[0] == "~" or said.rpartition(" ")[2].isdigit() for _, said, _ in senses)
