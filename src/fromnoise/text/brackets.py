"""Round and square brackets: which words weigh more and which less, and where a new chunk begins.

The rules are those of the AUTOMATIC1111 web UI (`modules/prompt_parser.py`): `(x)` times 1.1, `[x]` divided by 1.1,
`(x:1.3)` times 1.3, `\\(` a bracket as such, BREAK a new chunk; an unclosed bracket holds to the end, and one that
closes nothing is text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

MORE, LESS = 1.1, 1 / 1.1
CLOSES = {"(": ")", "[": "]"}

_TOKEN = re.compile(
    r"\\(?P<escaped>[()\[\]\\]?)|(?P<open>[(\[])|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|(?P<close>[)\]])|[^\\()\[\]:]+|:"
)
_BREAK = re.compile(r"\bBREAK\b")
_SPECIAL = re.compile(r"[\\()\[\]]")


@dataclass(frozen=True)
class Span:
    """Words, and the product of all weights around them."""

    text: str
    weight: float = 1.0


Section = tuple[Span, ...]
"""Words that share chunks; what follows a BREAK is another section."""


@dataclass(frozen=True)
class Weighed:
    """A text's sections, with what was odd: brackets never closed, closing nothing, or around a BREAK."""

    sections: tuple[Section, ...]
    unclosed: str = ""
    stray: str = ""
    break_inside: bool = False


@lru_cache(maxsize=1024)
def weigh(text: str) -> Weighed:
    """What the brackets of a text say; any text at all is good."""
    scales = _Scales()
    for match in _TOKEN.finditer(text):
        if match["escaped"] is not None:
            scales.add(match["escaped"])
        elif match["open"]:
            scales.open(match["open"])
        elif match["weight"]:
            scales.weighted(match[0], _finite(match["weight"]))
        elif match["close"]:
            scales.close(match["close"])
        else:
            scales.words(match[0])
    return scales.result()


def spell(sections: tuple[Section, ...]) -> str:
    """A short text that `weigh` reads as these sections."""
    return " BREAK ".join(
        "".join(_spelled(span, index > 0 and at == 0, index + 1 < len(sections) and at + 1 == len(section))
                for at, span in enumerate(section))
        for index, section in enumerate(sections)
    )  # fmt: skip


def plain_number(value: float) -> str:
    """A number in full, without an exponent, as short as it can be told from its neighbours."""
    number = format(Decimal(repr(float(value))), "f")
    return number.removesuffix(".0")


@dataclass
class _Scales:
    """Pieces in order, their weights so far, the sections' first pieces, and the open brackets' first pieces."""

    pieces: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    firsts: list[int] = field(default_factory=lambda: [0])
    opened: dict[str, list[int]] = field(default_factory=lambda: {"(": [], "[": []})
    stray: str = ""
    break_inside: bool = False

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        self.weights.append(1.0)

    def words(self, text: str) -> None:
        """Words that may hold a BREAK, which eats the blanks around it."""
        first, *others = _BREAK.split(text)
        self.add(first.rstrip() if others else first)
        for index, other in enumerate(others):
            self.break_inside |= any(self.opened.values())
            self.firsts.append(len(self.pieces))
            self.add(other.strip() if index + 1 < len(others) else other.lstrip())

    def open(self, bracket: str) -> None:
        self.opened[bracket].append(len(self.pieces))

    def close(self, bracket: str) -> None:
        opener = "(" if bracket == ")" else "["
        if self.opened[opener]:
            self._multiply(self.opened[opener].pop(), MORE if opener == "(" else LESS)
        else:
            self.stray += bracket
            self.add(bracket)

    def weighted(self, text: str, weight: float | None) -> None:
        """`:1.3)`; without a bracket to close it is words, and without a number only the bracket closes."""
        if not self.opened["("]:
            self.stray += ")"
            self.words(text)
        elif weight is None:
            self.words(text[:-1])
            self.close(")")
        else:
            self._multiply(self.opened["("].pop(), weight)

    def result(self) -> Weighed:
        """Brackets still open hold to the end: the round ones first, as the web UI has it."""
        unclosed = "".join(bracket * len(self.opened[bracket]) for bracket in "([")
        for bracket, factor in (("(", MORE), ("[", LESS)):
            for first in self.opened[bracket]:
                self._multiply(first, factor)
        ends = [*self.firsts[1:], len(self.pieces)]
        sections = tuple(self._section(first, end) for first, end in zip(self.firsts, ends, strict=True))
        return Weighed(sections, unclosed, self.stray, self.break_inside)

    def _multiply(self, first: int, factor: float) -> None:
        for index in range(first, len(self.weights)):
            self.weights[index] *= factor

    def _section(self, first: int, end: int) -> Section:
        """Neighbours of the same weight are one span, so that "[fe|]male" is one word."""
        merged: list[tuple[str, float]] = []
        for piece, weight in zip(self.pieces[first:end], self.weights[first:end], strict=True):
            before = merged.pop()[0] if merged and merged[-1][1] == weight else ""
            merged.append((before + piece, weight))
        return tuple(Span(text, weight) for text, weight in merged if text)


def _finite(number: str) -> float | None:
    try:
        value = float(number)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _spelled(span: Span, after_break: bool, before_break: bool) -> str:
    """A span in brackets, or bare when it weighs 1 and has no blanks that a BREAK beside it would eat."""
    text = _BREAK.sub(r"BREA\\K", _SPECIAL.sub(r"\\\g<0>", span.text))
    blanks = (after_break and text != text.lstrip()) or (before_break and text != text.rstrip())
    return f"({text}:{plain_number(span.weight)})" if blanks or span.weight != 1.0 else text
