"""NOTICE names every file that holds other people's pictures, and the sets whose pictures are in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fromnoise.data.sources import PICTURE_SETS, PictureSet
from fromnoise.evaluation.prompts import HELD_OUT
from fromnoise.evaluation.reference import load_reference

ROOT = Path(__file__).parents[1]
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
COPIES = NOTICE[NOTICE.index("Copies of pictures\n---") : NOTICE.index("Words\n---")]


def test_the_file_with_the_held_out_pictures_is_named() -> None:
    name = "src/fromnoise/evaluation/judge/held-out.webp"
    assert (ROOT / name).is_file()
    assert name in COPIES
    assert f"holds the {len(load_reference().held_out)}\npictures" in COPIES
    assert f'But for the {len(load_reference().held_out)} pictures named under "Copies of pictures"' in NOTICE


@pytest.mark.parametrize("picture_set", PICTURE_SETS, ids=lambda each: each.style)
def test_each_set_is_named_with_how_many_pictures_are_copied(picture_set: PictureSet) -> None:
    shown = Counter(each.style for each in load_reference().asking(HELD_OUT))
    assert f"{shown[picture_set.style]:4}  {picture_set.attribution}\n" in COPIES
    assert picture_set.package.link in NOTICE
    assert f"npm {picture_set.package.name} {picture_set.package.version}\n" in NOTICE


def test_the_licences_get_what_they_ask_for() -> None:
    assert "Copyright (c) Microsoft Corporation." in COPIES
    assert "Permission is hereby granted, free of charge" in COPIES
    assert "https://creativecommons.org/licenses/by/4.0/" in COPIES
    assert "scaled to 128 pixels" in COPIES
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
