"""Contact sheets hold every picture whole, with its words."""

import numpy as np
from PIL import Image

from fromnoise.images.sheets import contact_sheet, stacked

COLOURS = [["red", "lime"], ["blue", "yellow"]]


def squares(width: int = 128, height: int = 128) -> list[list[Image.Image]]:
    return [[Image.new("RGB", (width, height), colour) for colour in row] for row in COLOURS]


def is_colour(sheet: Image.Image, colour: str) -> np.ndarray:
    return (np.asarray(sheet) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))).all(-1)


def count(sheet: Image.Image, colour: str) -> int:
    return int(is_colour(sheet, colour).sum())


def ink(sheet: Image.Image) -> int:
    return int((np.asarray(sheet.convert("L")) < 60).sum())


def test_every_picture_is_whole_and_in_order():
    sheet = contact_sheet(squares(), row_labels=["one", "two"], column_labels=["left", "right"], title="colours")
    assert [count(sheet, colour) for row in COLOURS for colour in row] == [128 * 128] * 4
    places = {colour: np.argwhere(is_colour(sheet, colour)).mean(0) for row in COLOURS for colour in row}
    assert places["red"][1] < places["lime"][1]
    assert places["red"][0] < places["blue"][0]


def test_long_labels_wrap_and_cover_nothing():
    long = "a very long description of what is to be seen in this row and nowhere else " * 3
    sheet = contact_sheet(squares(), row_labels=[long, "b"], column_labels=[long, "d"], title=long)
    assert [count(sheet, colour) for row in COLOURS for colour in row] == [128 * 128] * 4
    assert ink(sheet) > ink(contact_sheet(squares()))


def test_without_words():
    assert contact_sheet(squares()).size == (2 * 136 + 8, 2 * 136 + 8)


def test_small_and_uneven_pictures():
    rows = [[Image.new("RGB", (16, 8), "red")], [Image.new("RGB", (32, 64), "blue")] * 3]
    sheet = contact_sheet(rows, column_labels=["1", "2", "3"], title="🐺 狼\nnew line")
    assert count(sheet, "red") == 16 * 8
    assert count(sheet, "blue") == 3 * 32 * 64


def test_stacked():
    red, blue = Image.new("RGB", (5, 3), "red"), Image.new("RGB", (2, 4), "blue")
    both = stacked([red, blue])
    assert both.size == (5, 7)
    assert count(both, "red") == 15
    assert count(both, "blue") == 8
