"""Contact sheets: pictures in rows and columns with words beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

GAP = 8
TEXT = 13
LINE = 17
SMALLEST_CELL = 96
ROW_LABEL = 110
INK, PAPER = "#222222", "#ffffff"


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
) -> Image.Image:
    """Pictures in a grid, labels above the columns and left of the rows, wrapped to fit; a title above all.

    Pictures of several sizes stand in cells of the largest. A row may be shorter than the others.
    """
    pictures = [picture for row in rows for picture in row]
    cell_width = max(SMALLEST_CELL, *(each.width for each in pictures))
    cell_height = max(each.height for each in pictures)
    left = GAP + (ROW_LABEL if row_labels else 0)
    width = left + max(len(row) for row in rows) * (cell_width + GAP)
    heading = _Words(title, width - 2 * GAP)
    above = [_Words(label, cell_width) for label in column_labels]
    beside = [_Words(label, ROW_LABEL - GAP) for label in row_labels]
    row_height = max([cell_height, *(words.height for words in beside)]) + GAP
    labels_at = GAP + heading.height
    top = labels_at + max((words.height for words in above), default=0)

    sheet = Image.new("RGB", (width, top + len(rows) * row_height), PAPER)
    heading.write(sheet, GAP, GAP)
    for column, words in enumerate(above):
        words.write(sheet, left + column * (cell_width + GAP), labels_at)
    for row, words in enumerate(beside):
        words.write(sheet, GAP, top + row * row_height)
    for row, row_pictures in enumerate(rows):
        for column, picture in enumerate(row_pictures):
            sheet.paste(picture, (left + column * (cell_width + GAP), top + row * row_height))
    return sheet


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below the other."""
    whole = Image.new("RGB", (max(each.width for each in sheets), sum(each.height for each in sheets)), PAPER)
    y = 0
    for each in sheets:
        whole.paste(each, (0, y))
        y += each.height
    return whole


@dataclass(frozen=True)
class _Words:
    """Text in lines of at most `width` pixels, broken at words where possible."""

    text: str
    width: int

    @property
    def lines(self) -> list[str]:
        if not self.text:
            return []
        letter = max(1.0, _font().getlength(" ".join(self.text.split())) / len(self.text))
        return textwrap.wrap(self.text, max(4, int(self.width / letter * 0.95)))

    @property
    def height(self) -> int:
        """Pixels, with room below; 0 without words."""
        return len(self.lines) * LINE + GAP if self.text else 0

    def write(self, sheet: Image.Image, x: int, y: int) -> None:
        for index, line in enumerate(self.lines):
            ImageDraw.Draw(sheet).text((x, y + index * LINE), line, fill=INK, font=_font())


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(TEXT)
