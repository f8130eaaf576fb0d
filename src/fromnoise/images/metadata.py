"""The settings that a picture carries: the text that other tools read, and beside it our whole Request.

PNG holds both in text chunks, `parameters` and `fromnoise`. JPEG and WebP hold the text in EXIF's UserComment; our
own JSON, which may be longer than EXIF allows, goes into JPEG's APP9 segments and WebP's XMP chunk.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fromnoise.images.foreign import read_foreign
from fromnoise.images.opening import DAMAGE
from fromnoise.images.parameters import parse_parameters, write_parameters
from fromnoise.request import Request

OWN = "fromnoise"
PARAMETERS = "parameters"

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_UNICODE = b"UNICODE\0"
_APP9 = b"\xff\xe9"
_SEGMENT = 65_000
_XMP = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><fromnoise>', "</fromnoise></x:xmpmeta>")


@dataclass(frozen=True)
class Settings:
    """What a picture says about itself: the tool that drew it, its words, and the tool's own settings by name.

    `request` is there when fromnoise drew it and the picture can be drawn again.
    """

    tool: str
    prompt: str
    negative: str
    values: Mapping[str, str]
    request: Request | None = None


def save_options(format: str, request: Request, sheet: str | None = None) -> dict[str, Any]:
    """Keyword arguments for `Image.save` that embed the request in a "PNG", "JPEG" or "WEBP" file.

    A contact sheet says what it varies in `sheet`; it gets the text alone, since no one request draws it.
    """
    text = write_parameters(request, **({} if sheet is None else {"Sheet": sheet}))
    return _WRITERS[format](text, None if sheet is not None else request.to_json())


def read_settings(image: Image.Image) -> Settings | None:
    """The settings in a loaded picture, ours before those of other tools; None when there are none.

    Raises UsageError when our own are damaged.
    """
    own = _own(image)
    text = _text(image)
    if own is None and text is None:
        return _from_foreign(image)
    request = None if own is None else Request.from_json(own)
    found = parse_parameters(text or write_parameters(request or Request()))
    ours = request is not None or "Sheet" in found.settings
    return Settings(
        tool=OWN if ours else "AUTOMATIC1111",
        prompt=found.prompt if request is None else request.prompt,
        negative=found.negative if request is None else request.negative,
        values=found.settings,
        request=request,
    )


def _from_foreign(image: Image.Image) -> Settings | None:
    found = read_foreign(_texts(image))
    return None if found is None else Settings(found.tool, found.prompt, found.negative, found.values)


def _png(text: str, own: str | None) -> dict[str, Any]:
    chunks = PngInfo()
    chunks.add_text(PARAMETERS, text)
    if own is not None:
        chunks.add_text(OWN, own)
    return {"pnginfo": chunks}


def _jpeg(text: str, own: str | None) -> dict[str, Any]:
    data = (own or "").encode()
    pieces = [f"{OWN}\0".encode() + data[at : at + _SEGMENT] for at in range(0, len(data), _SEGMENT)]
    segments = b"".join(_APP9 + (2 + len(each)).to_bytes(2) + each for each in pieces)
    return {"exif": _exif(text), "extra": segments, "quality": 95, "subsampling": 0}


def _webp(text: str, own: str | None) -> dict[str, Any]:
    xmp = {} if own is None else {"xmp": html.escape(own, quote=False).join(_XMP).encode()}
    return {"exif": _exif(text), "lossless": True, **xmp}


_WRITERS: Mapping[str, Callable[[str, str | None], dict[str, Any]]] = MappingProxyType(
    {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}
)


def _exif(text: str) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _UNICODE + text.encode("utf-16-be")
    return exif


def _own(image: Image.Image) -> str | None:
    """Our JSON, wherever this format keeps it."""
    prefix = f"{OWN}\0".encode()
    segments = [data.removeprefix(prefix) for _, data in getattr(image, "applist", ()) if data.startswith(prefix)]
    xmp = _as_text(image.info.get("xmp", b""))
    if segments:
        return b"".join(segments).decode(errors="replace")
    if xmp.startswith(_XMP[0]):
        return html.unescape(xmp.removeprefix(_XMP[0]).removesuffix(_XMP[1]))
    return _texts(image).get(OWN)


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _text(image: Image.Image) -> str | None:
    """The "parameters" text, from a PNG chunk or from EXIF."""
    return _texts(image).get(PARAMETERS) or _user_comment(image)


def _texts(image: Image.Image) -> dict[str, str]:
    found = {**image.info, **getattr(image, "text", {})}
    return {key: str(value) for key, value in found.items() if isinstance(key, str) and isinstance(value, str)}


def _user_comment(image: Image.Image) -> str | None:
    """EXIF's UserComment when it is Unicode; the standard leaves the byte order open, and tools use both."""
    try:
        comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    except DAMAGE:
        return None
    if not isinstance(comment, bytes) or not comment.startswith(_UNICODE):
        return None
    data = comment.removeprefix(_UNICODE)
    little = data[1::2].count(0) > data[::2].count(0)
    return data.decode("utf-16-le" if little else "utf-16-be", errors="replace")
