"""A larger canvas around a picture, with a mask of what is to be drawn on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from fromnoise.images.opening import to_png
from fromnoise.runtime.errors import UsageError

OVERLAP = 8
"""Pixels of the old picture that are drawn anew along a side that grows, so that the new part can follow on."""

BLUR = 0.5
"""Blur of the new part, as a share of how far it reaches."""


@dataclass(frozen=True)
class Margins:
    """Pixels added on each side."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __post_init__(self) -> None:
        sides = self.left, self.right, self.top, self.bottom
        if min(sides) < 0 or max(sides) > 4096:
            raise UsageError("the pixels added on a side must be from 0 to 4096")
        if not any(sides):
            raise UsageError("nothing is added; say how many pixels and where, as --right 64")


def extended(image: Image.Image, margins: Margins, overlap: int = OVERLAP) -> tuple[bytes, bytes]:
    """A Request's `init` and `mask` (PNG) for drawing on beyond the picture's edges.

    The new part begins as the edge's own colours carried outwards and blurred, so that a drawing at a strength below 1
    goes on with them. The mask covers it, and `overlap` pixels of the picture along each side that grows. Raises
    UsageError when that leaves nothing of the picture.
    """
    sides = margins.left, margins.right, margins.top, margins.bottom
    left, right, top, bottom = (overlap if side else 0 for side in sides)
    kept = image.width - left - right, image.height - top - bottom
    if overlap < 0 or min(kept) <= 0:
        widest = _widest_overlap(image.size, margins)
        raise UsageError(f"an overlap of {overlap} doesn't fit a picture of {image.width}x{image.height}; try {widest}")
    canvas = _filled(image.convert("RGB"), margins)
    mask = Image.new("L", canvas.size, 255)
    mask.paste(0, (margins.left + left, margins.top + top, margins.left + left + kept[0], margins.top + top + kept[1]))
    return to_png(canvas), to_png(mask)


def _widest_overlap(size: tuple[int, int], margins: Margins) -> int:
    """The usual overlap, or what of it leaves a pixel of the picture."""
    grown = bool(margins.left) + bool(margins.right), bool(margins.top) + bool(margins.bottom)
    return min(OVERLAP, *((side - 1) // count for side, count in zip(size, grown, strict=True) if count))


def _filled(image: Image.Image, margins: Margins) -> Image.Image:
    """The picture on the larger canvas, its edges' colours around it."""
    sides = (margins.top, margins.bottom), (margins.left, margins.right), (0, 0)
    carried = Image.fromarray(np.pad(np.asarray(image), sides, mode="edge"))
    reach = max(margins.left, margins.right, margins.top, margins.bottom)
    canvas = carried.filter(ImageFilter.GaussianBlur(BLUR * reach))
    canvas.paste(image, (margins.left, margins.top))
    return canvas
