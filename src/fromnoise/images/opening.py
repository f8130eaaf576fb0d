"""Open any picture that Pillow reads, and bring it to a shape that a model can work on."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note

DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
"""What Pillow's readers raise when a file is cut short or is not what it says."""

WIDEST = 4
"""A side is at most this many times the model's own: longer ones cost memory by the square."""


def read_picture(path: Path) -> bytes:
    """A picture file's bytes; UsageError when it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror or error}; check the path") from error


def open_image(data: bytes, name: str = "the picture") -> Image.Image:
    """The decoded picture with its metadata, as it is in the file (first frame of an animation).

    Raises UsageError, calling the picture `name`, when the bytes are empty, damaged, no picture or a decompression
    bomb (Pillow's limit of 89 million pixels).
    """
    if not data:
        raise UsageError(f"{name} is empty; give a picture file, or check the command that should have made it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UsageError(f"{name} has too many pixels to be opened safely; make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise UsageError(f"{name} is no picture that can be read; PNG, JPEG and WebP always can") from None
    except DAMAGE as error:
        raise UsageError(f"{name} is damaged ({error}); save it again or take another copy") from error
    return image


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as a person sees it: turned as EXIF says, over white where it is transparent, 8 bits of RGB."""
    image = upright(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as EXIF says, in 8 bits; its transparency stays."""
    return _turned(_eight_bit(image))


def is_see_through(image: Image.Image) -> bool:
    """True when a part of the picture is transparent, wholly or a little."""
    image = upright(image)
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255


def fit(image: Image.Image, native: tuple[int, int], multiple: int, size: tuple[int, int] | None = None) -> Image.Image:
    """The picture at `size`, or at the size nearest to its shape that a model of `native` size can do.

    What the new shape leaves over is cut evenly from two edges. Any change is said with a note.
    """
    size = nearest_size(image.size, native, multiple) if size is None else size
    if image.size == size:
        return image
    note(f"the picture is {image.width}x{image.height}; resized to {size[0]}x{size[1]}{_cut(image.size, size)}")
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def starting_picture(
    data: bytes,
    native: tuple[int, int],
    multiple: int,
    size: tuple[int, int] | None = None,
    name: str = "the picture",
) -> bytes:
    """A Request's `init` from any picture's bytes: upright, opaque, fitted, as PNG. Raises as `open_image`."""
    image = open_image(data, name)
    if getattr(image, "n_frames", 1) > 1:
        note(f"{name} is animated; its first frame is used")
    try:
        upright = upright_rgb(image)
    except DAMAGE as error:
        raise UsageError(f"{name} can't be turned into RGB ({error}); convert it first") from error
    return to_png(fit(upright, native, multiple, size))


def to_png(image: Image.Image) -> bytes:
    """The picture's pixels alone as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def nearest_size(size: tuple[int, int], native: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The (width, height) in multiples of `multiple` that best keeps the shape of `size` and the area of `native`."""
    aspect, area = math.log(size[0] / size[1]), math.log(native[0] * native[1])

    def misfit(candidate: tuple[int, int]) -> float:
        width, height = (math.log(side) for side in candidate)
        return 4 * abs(width - height - aspect) + abs(width + height - area)

    widths, heights = (range(multiple, WIDEST * side + 1, multiple) for side in native)
    return min(((width, height) for width in widths for height in heights), key=misfit)


def _cut(before: tuple[int, int], after: tuple[int, int]) -> str:
    """How much of the picture `ImageOps.fit` cuts away, in words; nothing below one percent."""
    ratio = (before[0] / before[1]) / (after[0] / after[1])
    lost = 1 - min(ratio, 1 / ratio)
    return "" if lost < 0.01 else f", which cuts {lost:.0%} off the {'sides' if ratio > 1 else 'top and bottom'}"


def _turned(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; as it is when EXIF is damaged, which says nothing about the pixels."""
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGE:
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Deeper grey pictures as 8 bits, which Pillow itself would clip to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise UsageError("the picture has values that are no numbers (NaN or infinite); repair or convert it first")
    if values.min(initial=0.0) < 0:
        note("the picture has values below 0; they are drawn black")
    top = 65535.0 if image.mode.startswith("I") else max(1.0, float(values.max(initial=0.0)))
    grey = Image.fromarray((values / top * 255.0).clip(0.0, 255.0).round().astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    grey.info.update({key: value for key, value in image.info.items() if key == "exif"})
    return grey
