"""From a drawing to the pixels of a dataset: 128×128 RGB over white."""

from __future__ import annotations

import io

from PIL import Image

from fromnoise.data.drawings import Drawing

__all__ = ["SIDE", "decode", "encode", "render"]

SIDE = 128

# resvg rejects sizes in pt, in or mm at its default of 0; 96 is what CSS defines.
_DPI = 96

# Drawn larger and averaged down, so that thin lines of every set get the same soft edges as the bitmaps.
_OVERSAMPLING = 2


def render(drawing: Drawing) -> Image.Image:
    """The drawing as a 128×128 RGB picture over white, its proportions kept.

    Raises ValueError for a drawing that can't be parsed.
    """
    content = drawing.content
    rgba = _rasterise(content) if isinstance(content, str) else _open(content)
    rgba.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIDE, SIDE), "white")
    canvas.alpha_composite(rgba, ((SIDE - rgba.width) // 2, (SIDE - rgba.height) // 2))
    return canvas.convert("RGB")


def encode(picture: Image.Image) -> bytes:
    """The picture as a PNG without metadata, the same bytes every time."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode(png: bytes) -> Image.Image:
    """The RGB picture of a PNG's bytes."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def _rasterise(svg: str) -> Image.Image:
    import resvg_py

    side = SIDE * _OVERSAMPLING
    return _open(bytes(resvg_py.svg_to_bytes(svg_string=svg, dpi=_DPI, width=side, skip_system_fonts=True)))


def _open(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGBA")
