"""The canvas that a picture is drawn on beyond its edges."""

import numpy as np
import pytest
from PIL import Image

from fromnoise.images.canvas import Margins, extended
from fromnoise.images.opening import open_image
from fromnoise.runtime.errors import UsageError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))


def test_the_picture_is_where_it_was_and_the_mask_around_it():
    init, mask = (np.asarray(open_image(each)) for each in extended(PICTURE, Margins(left=10, bottom=6), overlap=4))
    assert init.shape == (26, 40, 3)
    assert np.array_equal(init[:20, 10:], np.asarray(PICTURE))
    kept = np.zeros((26, 40), bool)
    kept[:16, 14:] = True
    assert np.array_equal(mask == 0, kept)
    assert set(np.unique(mask)) == {0, 255}


def test_the_new_part_goes_on_with_the_edge():
    picture = Image.new("RGB", (16, 16), "red")
    picture.paste("blue", (8, 0, 16, 16))
    init = np.asarray(open_image(extended(picture, Margins(left=8, right=8), 4)[0])).astype(int)
    assert (init[:, :4, 0] > init[:, :4, 2]).all()
    assert (init[:, -4:, 2] > init[:, -4:, 0]).all()


@pytest.mark.parametrize("sides", [{}, {"left": -1}, {"top": 5000}])
def test_margins_that_can_not_be_meant(sides: dict[str, int]):
    with pytest.raises(UsageError):
        Margins(**sides)


def test_an_overlap_must_leave_something():
    with pytest.raises(UsageError, match="overlap"):
        extended(PICTURE, Margins(top=8, bottom=8), overlap=10)


@pytest.mark.parametrize(
    ("size", "margins", "widest"),
    [((1, 1), Margins(left=4), 0), ((9, 30), Margins(left=4, right=4), 4), ((99, 99), Margins(top=4), 8)],
)
def test_the_overlap_that_is_advised_fits(size: tuple[int, int], margins: Margins, widest: int):
    with pytest.raises(UsageError, match=f"try {widest}$"):
        extended(Image.new("RGB", size), margins, 200)
    extended(Image.new("RGB", size), margins, widest)
