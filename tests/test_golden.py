"""Small pictures drawn by the random-weight model, kept in `tests/golden/`: what draws must not change unnoticed.

To accept a change on purpose, delete the pictures and run the tests once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.pipeline import load
from fromnoise.request import SAMPLERS

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_picture_as_ever(tiny_model: Path, sampler: str) -> None:
    picture = load(tiny_model)("a tortoise", seed=1, steps=6, guidance=3.0, sampler=sampler, size=(32, 24))[0].image
    kept = GOLDEN / f"{sampler}.png"
    if not kept.exists():
        picture.save(kept)
        pytest.fail(f"{kept} was missing and has been drawn; look at it, and commit it if it is right")
    difference = np.abs(np.asarray(picture).astype(int) - np.asarray(Image.open(kept)).astype(int))
    assert difference.max() <= 2
    assert np.asarray(picture).std() > 5, "a flat picture proves nothing"
