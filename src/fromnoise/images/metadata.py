"""The settings that a picture carries: the text that other tools read, and beside it our whole Request.

PNG holds both in text chunks, `parameters` and `fromnoise` (in a private chunk where it is very long). JPEG and WebP
hold the text in EXIF's UserComment; our own JSON, which may be longer than EXIF allows, goes into JPEG's APP9 segments
and WebP's XMP chunk.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fromnoise.images.foreign import read_foreign
from fromnoise.images.foreign.a1111 import read_parameters
from fromnoise.images.foreign.draft import clean, json_object
from fromnoise.images.opening import DAMAGE
from fromnoise.images.parameters import parse_parameters, write_parameters
from fromnoise.images.settings import OWN, Settings
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError

__all__ = ["OWN", "PARAMETERS", "Settings", "read_settings", "save_options"]

PARAMETERS = "parameters"

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_COMFYUI_TAGS = (0x010F, 0x0110)
_UNICODE, _ASCII = b"UNICODE\0", b"ASCII\0\0\0"
_APP9 = b"\xff\xe9"
_CHUNK, _LONGEST_TEXT = b"frNs", 2**24
"""A private chunk of PNG's, for JSON too long for a text chunk: readers refuse files with 64 MiB of text."""

_SEGMENT = 65_000
_XMP = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><fromnoise>', "</fromnoise></x:xmpmeta>")


def save_options(format: str, request: Request, sheet: str | None = None) -> dict[str, Any]:
    """Keyword arguments for `Image.save` that embed the request in a "PNG", "JPEG" or "WEBP" file.

    A contact sheet says what it varies in `sheet`; it gets the text alone, since no one request draws it.
    """
    text = write_parameters(request, **({} if sheet is None else {"Sheet": sheet}))
    return _WRITERS[format](text, None if sheet is not None else request.to_json())


def read_settings(image: Image.Image) -> Settings | None:
    """The settings in a loaded picture, ours before those of other tools; None when there are none.

    Never raises for what a file holds: what is damaged is said in `missing`, and there is no request then.
    """
    own, text = _own(image), _text(image)
    if own is not None:
        return _read_own(own, text)
    if text is not None and json_object(text) is None:
        return _read_text(text)
    return read_foreign(_texts(image) if text is None else {PARAMETERS: text, **_texts(image)})


def _read_own(own: str, text: str | None) -> Settings:
    """Our own Request; the text beside it says what the picture is when it is damaged."""
    try:
        request = Request.from_json(own)
    except UsageError as error:
        found = parse_parameters(text or "")
        said = f"fromnoise's settings in it can't be read: {clean(error)}"
        return Settings(OWN, found.prompt, found.negative, found.settings, missing=(said,))
    if request.seed is None:
        return Settings(OWN, request.prompt, request.negative, {}, missing=(f"{OWN}'s settings in it have no seed",))
    values = parse_parameters(text or write_parameters(request)).settings
    return Settings(OWN, request.prompt, request.negative, values, request)


def _read_text(text: str) -> Settings:
    """The text alone: another tool's, or ours without the Request beside it."""
    found = parse_parameters(text)
    if "Sheet" in found.settings:
        return Settings(OWN, found.prompt, found.negative, found.settings)
    return read_parameters(found)


def _png(text: str, own: str | None) -> dict[str, Any]:
    chunks = PngInfo()
    chunks.add_text(PARAMETERS, text)
    if own is not None and len(own) <= _LONGEST_TEXT:
        chunks.add_text(OWN, own)
    elif own is not None:
        chunks.add(_CHUNK, own.encode())
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
    for name, data, *_ in getattr(image, "private_chunks", ()):
        if name == _CHUNK:
            return data.decode(errors="replace")
    if xmp.startswith(_XMP[0]):
        return html.unescape(xmp.removeprefix(_XMP[0]).removesuffix(_XMP[1]))
    return _texts(image).get(OWN)


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _text(image: Image.Image) -> str | None:
    """The "parameters" text, from a PNG chunk or from EXIF, where it must have settings: cameras write there too."""
    comment = _user_comment(image) or ""
    said = bool(parse_parameters(comment).settings) or json_object(comment) is not None
    return _texts(image).get(PARAMETERS) or (comment if said else None)


def _texts(image: Image.Image) -> dict[str, str]:
    """A picture's texts by name; ComfyUI's WebP has its own in EXIF, as `prompt:{…}` and `workflow:{…}`."""
    found = {**image.info, **getattr(image, "text", {})}
    texts = {key: str(value) for key, value in found.items() if isinstance(key, str) and isinstance(value, str)}
    exif = _exif_of(image)
    for value in map(exif.get, _COMFYUI_TAGS):
        name, colon, text = str(value).partition(":")
        if colon and name in ("prompt", "workflow"):
            texts.setdefault(name, text)
    return texts


def _exif_of(image: Image.Image) -> Image.Exif:
    """EXIF; empty when it is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            exif = image.getexif()
            exif.get_ifd(_EXIF_IFD)
            return exif
    except DAMAGE:
        return Image.Exif()


def _user_comment(image: Image.Image) -> str | None:
    """EXIF's UserComment; the standard leaves the byte order of Unicode open, and tools use both."""
    comment = _exif_of(image).get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if not isinstance(comment, bytes):
        return None
    if comment.startswith(_ASCII):
        return comment.removeprefix(_ASCII).decode(errors="replace")
    if not comment.startswith(_UNICODE):
        return None
    data = comment.removeprefix(_UNICODE)
    little = data[1::2].count(0) > data[::2].count(0)
    return data.decode("utf-16-le" if little else "utf-16-be", errors="replace")
