"""Wildcards: `__animal__` is a line of animal.txt, `{red|green}` one of its choices.

What is chosen depends on the seed and on the place alone, so a prompt and a seed always give the same words; a
picture's metadata should hold the words, since a file may change. The syntax is that of the web UI's wildcard
extensions (sd-dynamic-prompts); a backslash before `{` or `_` leaves it as text.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fromnoise.runtime.errors import UsageError

MAX_DEPTH = 50
"""Choices in choices, and files in files."""
MAX_CHOICES = 1000
"""Choices in one prompt."""

_NAME = re.compile(r"__([^\W_]+(?:[-_./][^\W_]+)*)__")
_START = re.compile(r"\\.|__[^\W_]|\{", re.DOTALL)
_MARK = re.compile(r"\\.|[][{}|]", re.DOTALL)

Place = tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """What stood in the prompt, and the words that took its place."""

    source: str
    text: str


@dataclass(frozen=True)
class Resolved:
    """The prompt in full, and what was chosen, in the order in which it was."""

    text: str
    choices: tuple[Choice, ...] = ()


def resolve(prompt: str, seed: int, folder: Path | None = None) -> Resolved:
    """The prompt with every choice made; without a folder only `{red|green}` is chosen and `__name__` is text.

    UsageError when a file is missing, empty or not UTF-8, when files name each other in a circle, and when there are
    too many choices.
    """
    chooser = _Chooser(seed, folder)
    return Resolved(chooser.expand(prompt, (), ()), tuple(chooser.choices))


class _Chooser:
    """Makes the choices from left to right; a choice's place is its number below the place it was found in."""

    def __init__(self, seed: int, folder: Path | None) -> None:
        self.seed, self.folder = seed, folder
        self.choices: list[Choice] = []

    def expand(self, text: str, place: Place, files: tuple[str, ...]) -> str:
        """The text with its choices made; `files` are those that led here."""
        done, position, number = "", 0, 0
        while start := _START.search(text, position):
            end, words = self._at(text, start, (*place, number), files)
            number += words is not None
            done += text[position : start.start()] + (text[start.start() : end] if words is None else words)
            position = end
        return done + text[position:]

    def _at(self, text: str, start: re.Match[str], place: Place, files: tuple[str, ...]) -> tuple[int, str | None]:
        """Where what starts here ends, and the words for it; None where it is text."""
        if start[0] == "{":
            end, options = split_choices(text, start.start())
            if len(options) > 1:
                return end, self._choose(text[start.start() : end], options, place, files)
        elif (match := _NAME.match(text, start.start())) and self.folder is not None:
            return match.end(), self._from_file(self.folder, match[1], place, files)
        return start.end(), None

    def _from_file(self, folder: Path, name: str, place: Place, files: tuple[str, ...]) -> str:
        if name in files:
            raise UsageError(f"wildcards name each other in a circle: {' > '.join((*files, name))}; break it")
        return self._choose(f"__{name}__", _lines(folder, name), place, (*files, name))

    def _choose(self, source: str, options: Sequence[str], place: Place, files: tuple[str, ...]) -> str:
        index = len(self.choices)
        if index >= MAX_CHOICES or len(place) > MAX_DEPTH:
            raise UsageError(f"more than {MAX_CHOICES} choices, or {MAX_DEPTH} in each other; make the prompt simpler")
        self.choices.append(Choice(source, ""))
        text = self.expand(options[pick(self.seed, place, len(options))], place, files)
        self.choices[index] = Choice(source, text)
        return text


def pick(seed: int, place: Place, count: int) -> int:
    """One of `count`, evenly, as a function of seed and place."""
    digest = hashlib.blake2b(repr((seed, place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % count


def split_choices(text: str, start: int) -> tuple[int, list[str]]:
    """Where the brace at `start` is closed, and the choices in it; none when it never is, or goes too deep."""
    depth = 0
    bars: list[int] = []
    opened: list[int] = []
    for mark in _MARK.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth > MAX_DEPTH:
            break
        if depth == 0:
            return mark.end(), [text[one + 1 : other] for one, other in pairwise([start, *bars, mark.start()])]
        if mark[0] == "|" and depth == 1:
            bars.append(mark.start())
        elif mark[0] == "[" and depth == 1:
            opened.append(len(bars))
        elif mark[0] == "]" and depth == 1 and opened:
            del bars[opened.pop() :]  # those of an alternation
    return start + 1, []


def _lines(folder: Path, name: str) -> list[str]:
    """The choices in a file, one a line; empty lines and those that start with # are left out."""
    path = folder / f"{name}.txt"
    if not path.is_file():
        raise UsageError(_missing(folder, name))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"wildcard {path} can't be read: {error}; save it as UTF-8 text") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UsageError(f"wildcard {path} has no line to choose from; write one choice a line")
    return lines


def _missing(folder: Path, name: str) -> str:
    known = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.txt"))
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean __{near[0]}__?" if near else f"there are {len(known)}: {', '.join(known[:8]) or 'none'}"
    return f"no wildcard {name}.txt in {folder}; {hint}"
