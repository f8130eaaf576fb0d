"""Opening weights whatever they are kept in: safetensors or pickle, in one file, in shards, or in a part's folder.

What a file is, its first bytes say; its name only helps to find it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fromnoise.checkpoints.pickles import open_pickle
from fromnoise.checkpoints.stored import Stored, Tensors
from fromnoise.checkpoints.tensor_file import open_tensors
from fromnoise.runtime.errors import FromnoiseError, UsageError

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""What diffusers and transformers call the weights of a part."""

VARIANTS = ("", ".fp16", ".bf16", ".fp32", ".ema", ".non_ema")
"""What they put behind that name for another precision or average; the first that is there is taken."""

ENDINGS = (".safetensors", ".bin")
"""Safetensors before pickles."""


@dataclass(frozen=True)
class Weights:
    """Tensors by their keys in the file, unread; `path` is what errors name."""

    path: Path
    tensors: Tensors
    metadata: Mapping[str, str] = field(default_factory=dict)


STRANGERS: Mapping[bytes, str] = MappingProxyType(
    {
        b"version https://git-lfs": "a git-lfs pointer, not the file itself; run `git lfs pull` where it came from",
        b"<!doctype html": "a web page, not a model; the download went wrong (perhaps it needs a login)",
        b"<html": "a web page, not a model; the download went wrong (perhaps it needs a login)",
        b"gguf": "a GGUF file, which is not supported; use the .safetensors file of the same model",
        b"\x1f\x8b": "compressed with gzip; unpack it first",
        b"\x89hdf": "an HDF5 file (Keras?), which is not supported; use the .safetensors file of the same model",
    }
)
"""What a download often brings instead of a checkpoint, by its first bytes in lower case."""

PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How pickled checkpoints begin: today's zip archive, or a bare pickle of protocol 2 to 5."""


def open_weights(path: Path) -> Weights:
    """The weights in one file; FromnoiseError saying what it is when it is no checkpoint or damaged."""
    start = _start(path)
    if start[4:9] == b"\0\0\0\0{":  # a header's length comes first, which may look like anything
        return Weights(path, *open_tensors(path))
    for sign, what in STRANGERS.items():
        if start.lower().lstrip().startswith(sign):
            raise FromnoiseError(f"{path} is {what}")
    read = open_pickle if start.startswith(PICKLES) else open_tensors
    return Weights(path, *read(path))


def find_weights(folder: Path) -> Weights:
    """The weights of a part's folder: safetensors rather than pickles, full precision rather than a variant.

    Raises FromnoiseError naming what was looked for when there are none.
    """
    path, read = _found(folder)
    return read(path)


def weights_file(folder: Path) -> Path:
    """The file, or the index of shards, that `find_weights` would open."""
    return _found(folder)[0]


def _found(folder: Path) -> tuple[Path, Callable[[Path], Weights]]:
    for path, read in _candidates(folder):
        if path.is_file():
            return path, read
    names = ", ".join(f"{stem}{ENDINGS[0]}" for stem in STEMS[:2])
    raise FromnoiseError(f"{folder} has no weights ({names} or variants of them)")


def _candidates(folder: Path) -> Iterator[tuple[Path, Callable[[Path], Weights]]]:
    for ending in ENDINGS:
        for variant in VARIANTS:
            for stem in STEMS:
                yield folder / f"{stem}{variant}{ending}", open_weights
                yield folder / f"{stem}{ending}.index{variant}.json", _open_shards


def _open_shards(index: Path) -> Weights:
    """The weights of several files, which must together hold just what the index says."""
    try:
        places = json.loads(index.read_text())["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FromnoiseError(f"{index} can't be read as an index of weights: {error}") from error
    shards = {name: open_weights(_beside(index, name)) for name in names}
    tensors: dict[str, Stored] = {}
    for key, name in places.items():
        if key not in shards[name].tensors:
            raise FromnoiseError(f"{shards[name].path} lacks {key}, which {index.name} places there")
        tensors[key] = shards[name].tensors[key]
    unlisted = [key for name, shard in shards.items() for key in shard.tensors if places.get(key) != name]
    if unlisted:
        raise FromnoiseError(f"{index} does not list {len(unlisted)} keys of its files ({', '.join(unlisted[:3])})")
    return Weights(index, tensors)


def _beside(index: Path, name: str) -> Path:
    if not isinstance(name, str) or Path(name).name != name or not name.isprintable():
        raise FromnoiseError(f"{index} names {name!r}, which is no file beside it")
    return index.parent / name


def _start(path: Path) -> bytes:
    """The first bytes; UsageError for what is no file, FromnoiseError for an empty one."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise FromnoiseError(f"{path} is missing") from None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    if not start:
        raise FromnoiseError(f"{path} is empty; fetch it again")
    return start
