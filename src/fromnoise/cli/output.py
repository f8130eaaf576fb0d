"""Where pictures go: a file, a folder, a pattern of names, or standard output."""

from __future__ import annotations

import itertools
import re
import string
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fromnoise.images.saving import encode, picture_format, save_picture
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError

if TYPE_CHECKING:
    from fromnoise.pipeline import Picture

STDOUT = "-"
DEFAULT_FOLDER = "outputs"
DEFAULT_NAME = "{date}-{seed}-{slug}.png"
LONGEST_SLUG = 40


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
        path = self._free(_named(self.pattern, request, self._written))
        save_picture(image, request, path, overwrite=self.overwrite, sheet=sheet)
        print(path, flush=True)

    def _free(self, path: Path) -> Path:
        if self.overwrite or not _fields(self.pattern or ""):
            return path
        others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
        return next(each for each in itertools.chain([path], others) if not each.exists())

    def _try(self, count: int) -> None:
        assert self.pattern is not None
        names = [_named(self.pattern, Request(seed=0), number) for number in range(1, count + 1)]
        picture_format(names[0])
        if set(_fields(self.pattern)) <= {"n"} and not self.overwrite:
            for path in names:
                if path.exists():
                    raise UsageError(f"{path} exists; choose another name or give --overwrite")
        for folder in {path.parent for path in names}:
            _require_writable(folder)


def _standard_output(count: int) -> None:
    if count > 1:
        raise UsageError("standard output holds one picture; leave out --count or give -o a folder")
    if sys.stdout.isatty():
        raise UsageError("a picture would garble the terminal; pipe it (… -o - | …) or give -o a file")


def _pattern(place: str) -> str:
    """A full pattern: folders get the default name."""
    path = Path(place).expanduser()
    is_folder = place.endswith(("/", "\\")) or path.is_dir() or not path.suffix
    pattern = str(path / DEFAULT_NAME if is_folder else path)
    unknown = sorted(set(_fields(pattern)) - _values(Request(seed=0), 1).keys())
    if unknown:
        known = ", ".join(_values(Request(seed=0), 1))
        raise UsageError(f"no {{{unknown[0]}}} in names of pictures; there are {known}")
    return pattern


def _fields(pattern: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise UsageError(f"can't read the name {pattern!r}: {error}; double a brace that is part of it") from error


def _named(pattern: str, request: Request, number: int) -> Path:
    try:
        return Path(pattern.format(**_values(request, number)))
    except (ValueError, TypeError) as error:
        raise UsageError(f"can't make a name of {pattern!r}: {error}") from error


def _values(request: Request, number: int) -> dict[str, object]:
    now = datetime.now()
    return {
        "date": f"{now:%Y-%m-%d}",
        "time": f"{now:%H%M%S}",
        "seed": request.seed,
        "slug": slug(request.prompt),
        "steps": request.steps,
        "guidance": "" if request.guidance is None else f"{request.guidance:g}",
        "sampler": request.sampler,
        "n": number,
    }


def slug(prompt: str) -> str:
    """A prompt's words as they can stand in a file's name."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:LONGEST_SLUG].strip("-") or "picture"


def _require_writable(folder: Path) -> None:
    """Try a file in the folder, or in the one that it would be made in, without leaving anything."""
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(f"can't write in {folder}: {error.strerror or error}; choose another folder") from error
