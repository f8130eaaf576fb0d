"""Write pictures whole, with their settings, and never over another file unless asked."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from fromnoise.images.metadata import save_options
from fromnoise.request import Request
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import write_whole

FORMATS: Mapping[str, str] = MappingProxyType({".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"})
"""What can be written, by a file's ending."""


def picture_format(path: Path) -> str:
    """The format that a file's ending asks for; UsageError for an ending that is none of `FORMATS`."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"can't write {path.name}; end the name with one of {', '.join(FORMATS)}") from None


def encode(image: Image.Image, format: str, request: Request, *, sheet: str | None = None) -> bytes:
    """The file's bytes, the settings inside. PNG and WebP keep every pixel; JPEG is written at quality 95."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **save_options(format, request, sheet))
    except (OSError, ValueError) as error:
        raise FromnoiseError(f"can't make a {format} of {image.width}x{image.height} ({error}); try .png") from error
    return buffer.getvalue()


def save_picture(
    image: Image.Image, request: Request, path: Path, *, overwrite: bool = False, sheet: str | None = None
) -> Path:
    """Write a picture with the request that draws it again, or a contact `sheet` with what it varies; gives `path`.

    Raises UsageError when the file exists and `overwrite` is false, or when its folder can't be written.
    """
    return write_whole(path, encode(image, picture_format(path), request, sheet=sheet), overwrite=overwrite)
