"""Masks: white where to draw. Read from any picture, turned into a region to draw and into an edge to paste along."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from fromnoise.images.opening import DAMAGE, open_image, to_png, upright
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two outside."""

WHITE = 128
"""The darkest grey that counts as white: half, as diffusers has it."""

MOSTLY = 0.75
"""From this share of white on, a person is asked whether the mask is the wrong way round."""

SHAPE = 1.02
"""How far a mask's shape may be from its picture's."""


def mask_for(data: bytes, size: tuple[int, int], name: str = "the mask", *, invert: bool = False) -> bytes:
    """A Request's `mask` from any picture's bytes, for a picture of (width, height) `size`: black and white, as PNG.

    White is where to draw. A picture with transparent parts that isn't white on grey or black is drawn where it is
    transparent (the way of OpenAI's image API). `invert` swaps the two. Raises UsageError for a mask of another shape
    than the picture, for one with nothing to draw or nothing to keep, and as `open_image`.
    """
    try:
        image = upright(open_image(data, name))
        grey = _brightness(image)
    except DAMAGE as error:
        raise UsageError(f"{name} can't be read as a mask ({error}); save it as a grey PNG") from error
    shape, wanted = image.width / image.height, size[0] / size[1]
    if not 1 / SHAPE <= shape / wanted <= SHAPE:
        raise UsageError(f"{name} is {image.width}x{image.height} and the picture {size[0]}x{size[1]}; crop it alike")
    mask = two_tone(grey if grey.size == size else grey.resize(size, Image.Resampling.BILINEAR))
    mask = ImageChops.invert(mask) if invert else mask
    require_some(mask, name)
    if (share := white_share(mask)) >= MOSTLY:
        note(f"{share:.0%} of {name} is white, which is drawn; give --invert if black is where to draw")
    return to_png(mask)


def hole_mask(image: Image.Image, name: str = "the picture", *, invert: bool = False) -> bytes:
    """A Request's `mask` that is white where a picture is transparent; UsageError where it isn't at all.

    The picture is turned as EXIF says. `invert` draws all but the holes.
    """
    image = upright(image)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else Image.new("L", image.size, 255)
    mask = two_tone(ImageChops.invert(alpha))
    if mask.getbbox() is None:
        raise UsageError(f"{name} has no transparent part to fill; give a mask with --mask")
    require_some(mask, name)
    return to_png(ImageChops.invert(mask) if invert else mask)


def two_tone(grey: Image.Image) -> Image.Image:
    """Black and white, nothing between, in mode L."""
    return grey.convert("L").point([255 * (value >= WHITE) for value in range(256)])


def require_some(mask: Image.Image, name: str = "the mask") -> None:
    """UsageError for a black and white mask that is all of one."""
    darkest, lightest = mask.getextrema()
    if not lightest:
        raise UsageError(f"{name} is all black, so there is nothing to draw; make it white where to draw, or invert it")
    if darkest:
        raise UsageError(f"{name} is all white, so nothing would be kept; use img2img, or make it black where to keep")


def white_share(mask: Image.Image) -> float:
    """How much of a black and white mask is white, from 0 to 1."""
    return mask.histogram()[255] / (mask.width * mask.height)


def surroundings(mask: Image.Image, padding: int, size: tuple[int, int]) -> Box:
    """The box of a mask's white with `padding` pixels around it, grown to the shape of `size` inside the picture.

    The rule of the AUTOMATIC1111 web UI's "Only masked" (`modules/masking.py`) and of diffusers.
    """
    left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
    columns = max(left - padding, 0), min(right + padding, mask.width)
    rows = max(top - padding, 0), min(bottom + padding, mask.height)
    width, height = columns[1] - columns[0], rows[1] - rows[0]
    if width / height > size[0] / size[1]:
        rows = _grown(*rows, int(width / (size[0] / size[1]) - height), mask.height)
    else:
        columns = _grown(*columns, int(height * (size[0] / size[1]) - width), mask.width)
    return columns[0], rows[0], columns[1], rows[1]


def inner_feather(mask: Image.Image, blur: int) -> Image.Image:
    """How much of what is drawn to show, 0 to 255: it rises from the mask's edge inwards and is 0 outside the mask."""
    if not blur:
        return mask
    soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(blur)), np.int16)
    return Image.fromarray(np.where(np.asarray(mask) > 0, (2 * soft - 255).clip(0, 255), 0).astype(np.uint8))


def outer_feather(mask: Image.Image, blur: int) -> Image.Image:
    """How much of what is drawn to show, 0 to 255: all inside the mask, less and less outside it.

    The web UI's for a whole picture (`modules/processing.py`: the blurred mask, doubled).
    """
    return mask.filter(ImageFilter.GaussianBlur(blur)).point([min(2 * value, 255) for value in range(256)])


def blurred(mask: Image.Image, blur: int) -> Image.Image:
    """The mask blurred, on both sides of its edge."""
    return mask.filter(ImageFilter.GaussianBlur(blur))


def pasted(drawn: Image.Image, picture: Image.Image, box: Box, show: Image.Image) -> Image.Image:
    """The picture with what was drawn for `box` in it, as far as `show` says; where that is 0 no bit changes."""
    whole = picture.convert("RGB")
    size = box[2] - box[0], box[3] - box[1]
    fitting = drawn if drawn.size == size else drawn.resize(size, Image.Resampling.LANCZOS)
    layer = whole.copy()
    layer.paste(fitting, box[:2])
    return Image.composite(layer, whole, show)


def _brightness(image: Image.Image) -> Image.Image:
    """What a picture says as a mask: its greys, or where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("L")
    layer = image.convert("RGBA")
    over_black = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("RGB")
    red, green, blue = (np.asarray(band, np.int16) for band in over_black.split())
    is_grey = bool((np.abs(red - green) <= 8).all() and (np.abs(green - blue) <= 8).all())
    alpha = layer.getchannel("A")
    has_white = two_tone(over_black).getbbox() is not None
    if alpha.getextrema()[0] == 255 or (is_grey and has_white):
        return over_black.convert("L")
    return ImageChops.invert(alpha)


def _grown(low: int, high: int, extra: int, limit: int) -> tuple[int, int]:
    """A span made longer on both sides, moved to lie within [0, limit)."""
    side = min(high - low + extra, limit)
    start = min(max(low - extra // 2, 0), limit - side)
    return start, start + side
