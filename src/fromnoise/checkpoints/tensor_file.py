"""Safetensors files: the header checked with errors that say what is wrong, the tensors mapped, never copied.

The format: https://github.com/huggingface/safetensors#format. Eight bytes give the header's length, the header is
JSON, and the tensors' bytes follow without a gap.
"""

from __future__ import annotations

import json
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from fromnoise.checkpoints.stored import Stored, Tensors
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import atomic_write

LENGTH = 8
LONGEST_HEADER = 100_000_000
"""The format's own limit, in bytes; published headers take about 200,000."""

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)
NAMES: Mapping[torch.dtype, str] = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})

LARGEST = 2**62 // 8
"""The most numbers that are believed, whose bytes still fit into 64 bits; empty dimensions count as one."""

DEEPEST = 16
"""The most dimensions that are believed."""

METADATA = "__metadata__"

Told = Callable[[int], None]
"""Told how many bytes were just written."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says it holds: (dtype, shape) by key, metadata, and the byte each tensor starts at."""

    entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """The header of a safetensors file; FromnoiseError saying what is wrong with it."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            values, begins = _json(path, file, size)
    except FileNotFoundError:
        raise FromnoiseError(f"{path} is missing") from None
    except OSError as error:
        raise FromnoiseError(f"{path} can't be read: {error.strerror or error}") from error
    return _checked(path, values, begins, size - begins)


def open_tensors(path: Path) -> tuple[dict[str, Stored], Mapping[str, str]]:
    """The tensors of a safetensors file, still unread and mapped when read, and its metadata."""
    header = read_header(path)
    file = _Opened(path)

    def stored(key: str) -> Stored:
        dtype, shape = header.entries[key]
        return Stored(shape, dtype, lambda: file.mapped(key, header))

    return {key: stored(key) for key in header.entries}, header.metadata


class _Opened:
    """A file that goes on being the one it was, whatever takes its place, until nobody can read from it any more."""

    def __init__(self, path: Path) -> None:
        self._path, self._number = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._number)

    def mapped(self, key: str, header: Header) -> Tensor:
        """A tensor in a mapping of its own, which ends with it: until then its pages count as memory."""
        (dtype, shape), start = header.entries[key], header.starts[key]
        if not (size := prod(shape) * dtype.itemsize):
            return torch.empty(shape, dtype=dtype)
        before = start % mmap.ALLOCATIONGRANULARITY
        try:
            pages = mmap.mmap(self._number, before + size, access=mmap.ACCESS_COPY, offset=start - before)
        except (OSError, ValueError) as error:
            raise _damaged(self._path, f"{key} can't be read: {error}") from error
        values = torch.frombuffer(pages, dtype=torch.uint8, offset=before, count=size)
        return (values.clone() if start % dtype.itemsize else values).view(dtype).view(shape)


def write_stored(
    path: Path,
    tensors: Tensors,
    metadata: Mapping[str, str],
    *,
    overwrite: bool = True,
    told: Told = lambda count: None,
) -> None:
    """Write tensors one after another, each read only when its turn comes; whole or not at all.

    `told` hears the number of bytes as they are written. UsageError when `path` exists and `overwrite` is false.
    """
    ordered = sorted(tensors, key=lambda key: (-tensors[key].dtype.itemsize, key))  # large items first stay aligned
    with atomic_write(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        file.write(_header_bytes({key: tensors[key] for key in ordered}, metadata))
        for key in ordered:
            told(file.write(_values(key, tensors[key])))


def _values(key: str, stored: Stored) -> memoryview | bytes:
    tensor = stored.read()
    if tuple(tensor.shape) != stored.shape or tensor.dtype != stored.dtype:
        raise FromnoiseError(f"{key} read as {tensor.dtype} {list(tensor.shape)}, which is not what its file promised")
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b""


def _header_bytes(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded with spaces to a multiple of eight bytes."""
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    at = 0
    for key, each in tensors.items():
        offsets = [at, at := at + each.bytes]
        entries[key] = {"dtype": NAMES[each.dtype], "shape": list(each.shape), "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH)
    return len(text).to_bytes(LENGTH, "little") + text


def _damaged(path: Path, why: str) -> FromnoiseError:
    return FromnoiseError(f"{path} is damaged or no safetensors file: {why}")


def _json(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header's JSON object, its length checked before it is read, and the byte at which the tensors begin."""
    length = int.from_bytes(file.read(LENGTH), "little")
    if size < LENGTH:
        raise _damaged(path, f"{size} bytes are too few for a header")
    if length > LONGEST_HEADER:
        raise _damaged(path, f"it claims a header of {length} bytes, more than any checkpoint has")
    if length > size - LENGTH:
        raise _damaged(path, f"its header of {length} bytes is cut off after {size - LENGTH}; fetch the file again")
    try:
        values = json.loads(file.read(length).decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header can't be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise _damaged(path, "its header is no JSON object")
    return values, LENGTH + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(values := dict(pairs)) != len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _checked(path: Path, values: dict[str, Any], begins: int, room: int) -> Header:
    """The header as a Header, each entry checked, and that together they cover the `room` bytes from `begins` on."""
    metadata = values.pop(METADATA, None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(each, str) for each in metadata.values()):
        raise _damaged(path, "its metadata is not text by name")
    if not _is_unicode("".join((*metadata, *metadata.values(), *values))):
        raise _damaged(path, "its names are no proper Unicode")
    spans, entries, starts = [], {}, {}
    for key, entry in values.items():
        dtype, shape, span = _entry(path, key, entry)
        entries[key], starts[key] = (dtype, shape), begins + span[0]
        spans.append((*span, key))
    _require_cover(path, sorted(spans), room)
    return Header(entries, metadata, starts)


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can spell and no file or terminal takes."""
    try:
        return bool(text.encode()) or not text
    except UnicodeEncodeError:
        return False


def _entry(path: Path, key: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], tuple[int, int]]:
    """One tensor's dtype, shape and place; FromnoiseError when they contradict each other."""
    match entry:
        case {"dtype": str(name), "shape": list(shape), "data_offsets": [first, last]} if all(
            type(number) is int and number >= 0 for number in (*shape, first, last)
        ):
            pass
        case _:
            raise _damaged(path, f"{key} has no proper dtype, shape and place")
    if name not in DTYPES:
        raise _damaged(path, f"{key} has the dtype {name}, which is none of {', '.join(DTYPES)}")
    if len(shape) > DEEPEST or prod(max(number, 1) for number in shape) > LARGEST:
        raise _damaged(path, f"{key} claims the shape {str(shape)[:60]}, which no tensor has")
    if (takes := prod(shape) * DTYPES[name].itemsize) != last - first:
        raise _damaged(path, f"{key}, {name} {shape}, takes {takes} bytes, but has {last - first}")
    return DTYPES[name], tuple(shape), (first, last)


def _require_cover(path: Path, spans: list[tuple[int, int, str]], room: int) -> None:
    """The tensors must follow one another without overlap or gap, and end where the file ends."""
    for at, first, key in _gaps(spans):
        raise _damaged(path, f"{key} starts at {first}, where {at} was expected: tensors overlap or leave a gap")
    end = spans[-1][1] if spans else 0
    if end > room:
        raise _damaged(path, f"it is cut off: {end - room} of {end} bytes are missing; fetch it again")
    if end < room:
        raise _damaged(path, f"{room - end} bytes at its end belong to no tensor")


def _gaps(spans: list[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """Where a tensor does not start at the end of the one before: (expected, start, key)."""
    at = 0
    for first, last, key in spans:
        if first != at:
            yield at, first, key
        at = last
