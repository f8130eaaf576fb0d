"""Where pictures go: a file, a folder, a pattern of names, or standard output."""

from __future__ import annotations

import itertools
import os
import re
import string
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fromnoise.images.saving import encode, picture_format
from fromnoise.request import MAX_SEED, RANGES, SAMPLERS, Request
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import warn
from fromnoise.runtime.paths import NameTakenError, require_name, write_whole
from fromnoise.runtime.streams import is_terminal

if TYPE_CHECKING:
    from fromnoise.pipeline import Picture

STDOUT = "-"
DEFAULT_FOLDER = "outputs"
DEFAULT_NAME = "{date}-{seed}-{slug}.png"
LONGEST_SLUG = 40

_STATED = Request(
    prompt="𐐀", seed=MAX_SEED, steps=int(RANGES["steps"][1]), guidance=1.23456e-05, sampler=max(SAMPLERS, key=len)
)
"""A request as drawn ones are, to try names with: the longest of everything but the prompt, which can be shortened."""

_TAKEN = "-9999"
"""Room in a name for the number that tells it from others."""


@dataclass
class Output:
    """Takes finished pictures in order. `pattern` None is standard output.

    A name with fields makes way for a file that is there (`-2`, `-3`, …); a name without is an error then.
    """

    pattern: str | None
    overwrite: bool = False
    _written: int = field(default=0, init=False)

    @classmethod
    def parse(cls, place: str | None, *, count: int = 1, overwrite: bool = False) -> Output:
        """What `-o` means, tried before anything is drawn: UsageError for a place that can't be written."""
        if place == STDOUT:
            return cls(_standard_output(count))
        pattern = _pattern(place or DEFAULT_FOLDER + "/")
        if count > 1 and not _fields(pattern):
            pattern = re.sub(r"(\.\w+)$", r"-{n}\1", pattern)
        output = cls(pattern, overwrite)
        output._try(count)
        return output

    def take(self, picture: Picture) -> None:
        """Write a drawn picture."""
        self.write(picture.image, picture.request)

    def write(self, image: Image.Image, request: Request, *, sheet: str | None = None) -> None:
        """Save the next picture and print its path, or write its bytes to standard output."""
        self._written += 1
        if self.pattern is None:
            sys.stdout.buffer.write(encode(image, "PNG", request, sheet=sheet))
            sys.stdout.buffer.flush()
            return
        path, data = _encoded(image, _fitting(self.pattern, request, self._written), request, sheet)
        print(self._place(path, data), flush=True)

    def _place(self, first: Path, data: bytes) -> Path:
        """Write the file under the first name that is free, also when another process takes one meanwhile."""
        if self.overwrite or not _fields(self.pattern or ""):
            return write_whole(first, data, overwrite=self.overwrite)
        others = (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2))
        for path in itertools.chain([first], others):
            with suppress(NameTakenError):
                if not path.exists():
                    return write_whole(path, data)
        raise AssertionError("some name is free")

    def _try(self, count: int) -> None:
        assert self.pattern is not None
        names = [_named(self.pattern, _STATED, number) for number in range(1, count + 1)]
        picture_format(names[0])
        for path in names:
            _require_names(path, self.pattern)
        if set(_fields(self.pattern)) <= {"n"} and not self.overwrite:
            for path in names:
                if path.exists():
                    raise UsageError(f"{path} exists; choose another name or give --overwrite")
        for folder in {path.parent for path in names}:
            _require_writable(folder)


def _encoded(image: Image.Image, path: Path, request: Request, sheet: str | None) -> tuple[Path, bytes]:
    """The file's name and bytes; a PNG where the format that was asked for can't hold so large a picture."""
    try:
        return path, encode(image, picture_format(path), request, sheet=sheet)
    except FromnoiseError as error:
        if picture_format(path) == "PNG":
            raise
        warn(f"{error}, which it becomes")
        return path.with_suffix(".png"), encode(image, "PNG", request, sheet=sheet)


def _standard_output(count: int) -> None:
    if count > 1:
        raise UsageError("standard output holds one picture; leave out --count or give -o a folder")
    if sys.stdout is None:
        raise UsageError("standard output is closed; give -o a file or a folder")
    if is_terminal(sys.stdout):
        raise UsageError("a picture would garble the terminal; pipe it (… -o - | …) or give -o a file")


def _pattern(place: str) -> str:
    """A full pattern: folders get the default name."""
    path = Path(place).expanduser()
    is_folder = place.endswith(("/", "\\")) or os.path.isdir(path) or not path.suffix
    pattern = str(path / DEFAULT_NAME if is_folder else path)
    unknown = sorted(set(_fields(pattern)) - _values(_STATED, 1).keys())
    if unknown:
        known = ", ".join(_values(_STATED, 1))
        raise UsageError(f"no {{{unknown[0]}}} in names of pictures; there are {known}")
    return pattern


def _fields(pattern: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise UsageError(f"can't read the name {pattern!r}: {error}; double a brace that is part of it") from error


def _fitting(pattern: str, request: Request, number: int) -> Path:
    """A picture's name, with as much of the prompt as it can hold."""
    for longest in range(LONGEST_SLUG, 1, -1):
        path = _named(pattern, request, number, longest)
        with suppress(UsageError):
            _require_names(path, pattern)
            return path
    return _named(pattern, request, number, 1)


def _named(pattern: str, request: Request, number: int, longest: int = LONGEST_SLUG) -> Path:
    try:
        return Path(pattern.format(**_values(request, number, longest)))
    except (ValueError, TypeError) as error:
        raise UsageError(f"can't make a name of {pattern!r}: {error}") from error


def _values(request: Request, number: int, longest: int = LONGEST_SLUG) -> dict[str, object]:
    now = datetime.now()
    return {
        "date": f"{now:%Y-%m-%d}",
        "time": f"{now:%H%M%S}",
        "seed": request.seed,
        "slug": slug(request.prompt, longest),
        "steps": request.steps,
        "guidance": "" if request.guidance is None else _Short(request.guidance),
        "sampler": request.sampler,
        "n": number,
    }


class _Short(float):
    """A number that is written as short as can be unless told how."""

    def __format__(self, spec: str) -> str:
        return super().__format__(spec or "g")


def slug(prompt: str, longest: int = LONGEST_SLUG) -> str:
    """A prompt's words as they can stand in a file's name."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:longest].strip("-") or "picture"[:longest]


def _require_names(path: Path, pattern: str) -> None:
    """UsageError unless the path, and each folder on it that isn't there yet, can have these names."""
    path = path.with_stem(path.stem + _TAKEN) if _fields(pattern) else path
    require_name(path)
    nearest = _nearest(path.parent)
    for name in path.absolute().relative_to(nearest).parts:
        require_name(nearest / name)


def _nearest(folder: Path) -> Path:
    """The folder, or the one that is there already in which it would be made."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.exists(each))


def _require_writable(folder: Path) -> None:
    """Try a file in the folder, or in the one that it would be made in, without leaving anything."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            pass
    except OSError as error:
        raise UsageError(f"can't write in {folder}: {error.strerror or error}; choose another folder") from error
