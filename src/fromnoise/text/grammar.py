"""The prompt's grammar: what is drawn at which step, what is composed, and which adapters are asked for.

It is read in the order in which the AUTOMATIC1111 web UI reads it (`modules/prompt_parser.py`): `<lora:name:0.8>`
tags are taken out, `AND` parts the prompt, `[from:to:when]` and `[x|y]` say which text holds at a step, and the
brackets of that text say what it weighs. So an edit may stand inside a bracket, or even give its number. Every
text is a prompt: what is malformed is text, never an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from fromnoise.runtime.log import warn
from fromnoise.text.brackets import CLOSES, Section, Span, plain_number, spell, weigh

MAX_DEPTH = 64
"""Brackets in brackets that are still looked into for edits."""

_TAG = re.compile(r"<(\w+):([^>]+)>")
_AND = re.compile(r"\bAND\b")
_PART_WEIGHT = re.compile(r"\s*([-+]?(?:\d+\.?|\d*\.\d+))\s*")
_WHEN = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_TOKEN = re.compile(r"(?:[^\\\[\]():|]|\\.)+|[][():|\\]")
_MANY_STEPS = 1e6


@dataclass(frozen=True)
class Edit:
    """`[before:after:when]`: `after` takes over once `when` is past, an int of steps or a float share of them."""

    before: Nodes
    after: Nodes
    when: int | float

    def chosen(self, step: int, steps: int) -> Nodes:
        """What holds when `step` of `steps` steps are done."""
        return self.before if step < self.switches(steps) else self.after

    def switches(self, steps: int) -> int:
        """How many steps `before` holds."""
        return int(min(steps, self.when * steps if isinstance(self.when, float) else self.when))


@dataclass(frozen=True)
class Alternate:
    """`[x|y]`: every step the next option, over and over."""

    options: tuple[Nodes, ...]

    def chosen(self, step: int, steps: int) -> Nodes:
        """What holds when `step` steps are done."""
        return self.options[step % len(self.options)]


Node = str | Edit | Alternate
Nodes = tuple[Node, ...]
"""Text as it was written, brackets and escapes included, with edits and alternations in it."""


@dataclass(frozen=True)
class Part:
    """One of the prompts that `AND` composes."""

    weight: float
    nodes: Nodes

    def text(self, step: int, steps: int) -> str:
        """What is written when `step` of `steps` steps are done, its brackets not yet read."""
        return _text(self.nodes, step, steps)


@dataclass(frozen=True)
class Adapter:
    """`<lora:name:0.8>`: how strongly the adapter called `name` changes the text encoder and the U-Net."""

    kind: str
    name: str
    text: float = 1.0
    unet: float = 1.0


@dataclass(frozen=True)
class Composed:
    """What one part says at a step: its weight in the composition, and its weighted words."""

    weight: float
    sections: tuple[Section, ...]

    @property
    def spans(self) -> Section:
        """The weighted words of all sections."""
        return tuple(span for section in self.sections for span in section)

    @property
    def words(self) -> str:
        """The words alone."""
        return "".join(span.text for span in self.spans)

    @property
    def text(self) -> str:
        """The words with all weights written out."""
        return spell(self.sections)


@dataclass(frozen=True)
class Prompt:
    """A prompt that was read. A `literal` one has no grammar: all of it is words of weight 1."""

    parts: tuple[Part, ...]
    adapters: tuple[Adapter, ...] = ()
    literal: bool = False

    def at(self, step: int, steps: int) -> tuple[Composed, ...]:
        """What each part says when `step` of `steps` steps are done: 0 for the first step, steps - 1 for the last."""
        return tuple(Composed(part.weight, self._sections(part.text(step, steps))) for part in self.parts)

    def changes(self, steps: int) -> tuple[int, ...]:
        """The steps, counted from 0, that draw something else than the step before them."""
        said = [self.at(step, steps) for step in range(steps)]
        return tuple(step for step in range(1, steps) if said[step] != said[step - 1])

    def _sections(self, text: str) -> tuple[Section, ...]:
        return ((Span(text),),) if self.literal else weigh(text).sections


def parse(prompt: str, *, compose: bool = True) -> Prompt:
    """Read a prompt; any text is good. A negative prompt is not composed (`compose` false): AND is a word there."""
    text, adapters = take_tags(prompt)
    parts = tuple(map(_part, _AND.split(text))) if compose else (Part(1.0, _nodes(text)),)
    return Prompt(parts, adapters)


def later(prompt: Prompt, steps: int) -> Prompt:
    """What a prompt says from then on, when a first pass of that many steps is over.

    As in the web UI's second pass: a share counts on past 1, so that `[x:y:0.5]` is y, and `[x:y:1.5]` changes in the
    middle of the second pass.
    """
    return replace(prompt, parts=tuple(replace(part, nodes=_later(part.nodes, steps)) for part in prompt.parts))


def literal(prompt: str) -> Prompt:
    """A prompt without any grammar, as diffusers has it."""
    return Prompt((Part(1.0, (prompt,)),), literal=True)


def unparse(prompt: Prompt) -> str:
    """A text that `parse` reads as the same prompt."""
    tags = (
        f"<{each.kind}:{each.name}:{plain_number(each.text)}:{plain_number(each.unet)}>" for each in prompt.adapters
    )
    return " AND".join(map(_write_part, prompt.parts)) + "".join(tags)


def take_tags(prompt: str) -> tuple[str, tuple[Adapter, ...]]:
    """The prompt without its `<kind:name:…>` tags, and the tags in order."""
    found: list[Adapter] = []

    def take(match: re.Match[str]) -> str:
        found.append(_adapter(match[1], match[2]))
        return ""

    count = 1
    while count:
        prompt, count = _TAG.subn(take, prompt)
    return prompt, tuple(found)


def read_edits(text: str) -> Nodes | None:
    """Text with its edits and alternations; None where the web UI sees none at all.

    That is so when a `|` stands outside square brackets or a backslash before nothing: its grammar has no place for
    them, and then every bracket of the part only weighs.
    """
    reader = _Reader()
    tokens = _TOKEN.findall(text)
    return reader.result() if all(map(reader.take, tokens)) and reader.dissolve() else None


@dataclass
class _Frame:
    """An open bracket: what stands between its separators."""

    opener: str = ""
    separators: str = ""
    segments: list[list[Node]] = field(default_factory=lambda: [[]])

    def closed(self) -> Iterable[Node] | None:
        """What the bracket is once it closes; None when it is nothing that the grammar knows."""
        first, *others = self.segments
        if self.opener == "(" and self.separators in ("", ":"):
            return self.literal(")")
        if self.opener == "[" and not others:
            return self.literal("]")
        if self.opener == "[" and set(self.separators) == {"|"}:
            return [Alternate(tuple(map(_merged, self.segments)))]
        if self.opener == "[" and self.separators in (":", "::") and (when := _when(self.segments[-1])) is not None:
            before, after = (first, others[0]) if self.separators == "::" else ([], first)
            return [Edit(_merged(before), _merged(after), when)]
        return None

    def literal(self, closer: str = "") -> list[Node]:
        """The bracket as it was written."""
        nodes: list[Node] = [self.opener]
        for segment, separator in zip(self.segments, (*self.separators, closer), strict=True):
            nodes += [*segment, separator]
        return nodes


class _Reader:
    """Reads tokens from left to right. Each method is true while the web UI's grammar still fits."""

    def __init__(self) -> None:
        self.frames = [_Frame()]

    def take(self, token: str) -> bool:
        """The next token."""
        if token in CLOSES:
            return self._open(token)
        if token in CLOSES.values():
            return self._close(token)
        if token in (":", "|"):
            return self._separate(token)
        self.frames[-1].segments[-1].append(token)
        return token != "\\"

    def dissolve(self) -> bool:
        """All open brackets are text; edits already read inside them stay."""
        _, *opened = self.frames
        del self.frames[1:]
        for frame in opened:
            self.frames[0].segments[0] += frame.literal()
        return not any("|" in frame.separators for frame in opened)

    def result(self) -> Nodes:
        """What was read."""
        return _merged(self.frames[0].segments[0])

    def _open(self, bracket: str) -> bool:
        fits = len(self.frames) <= MAX_DEPTH or self.dissolve()
        self.frames.append(_Frame(bracket))
        return fits

    def _close(self, bracket: str) -> bool:
        frame = self.frames[-1]
        made = frame.closed() if CLOSES.get(frame.opener) == bracket else None
        if made is None:
            fits = self.dissolve()
            self.frames[0].segments[0].append(bracket)
            return fits
        self.frames.pop()
        self.frames[-1].segments[-1] += made
        return True

    def _separate(self, mark: str) -> bool:
        frame = self.frames[-1]
        if frame.opener:
            frame.separators += mark
            frame.segments.append([])
            return mark == ":" or frame.opener == "["
        frame.segments[0].append(mark)
        return mark == ":"


def _merged(nodes: Iterable[Node]) -> Nodes:
    """Neighbouring texts as one."""
    merged: list[Node] = []
    for node in nodes:
        if isinstance(node, str) and merged and isinstance(merged[-1], str):
            merged[-1] += node
        elif node != "":
            merged.append(node)
    return tuple(merged)


def _later(nodes: Nodes, steps: int) -> Nodes:
    return tuple(each if isinstance(each, str) else _node_later(each, steps) for each in nodes)


def _node_later(node: Edit | Alternate, steps: int) -> Edit | Alternate:
    if isinstance(node, Alternate):
        return Alternate(tuple(_later(each, steps) for each in node.options))
    when = node.when - 1.0 if isinstance(node.when, float) else node.when - steps
    return Edit(_later(node.before, steps), _later(node.after, steps), when)


def _when(segment: list[Node]) -> int | float | None:
    """The number that a segment is: with a point a share of the steps, without one their number."""
    match = _WHEN.fullmatch("".join(segment)) if all(isinstance(node, str) for node in segment) else None  # type: ignore[arg-type]
    if match is None:
        return None
    value = max(-_MANY_STEPS, min(float(match[1]), _MANY_STEPS))
    return value if "." in match[1] else int(value)


def _text(nodes: Nodes, step: int, steps: int) -> str:
    return "".join(node if isinstance(node, str) else _text(node.chosen(step, steps), step, steps) for node in nodes)


def _part(text: str) -> Part:
    """A composed part; the number behind its last colon is its weight, as long as nothing follows it."""
    head, colon, tail = text.rpartition(":")
    match = _PART_WEIGHT.fullmatch(tail) if colon else None
    words = head.rstrip() if match else text.rstrip()
    return Part(float(match[1]) if match else 1.0, _nodes(words))


def _nodes(text: str) -> Nodes:
    nodes = read_edits(text)
    return (text,) if nodes is None else nodes


def _adapter(kind: str, arguments: str) -> Adapter:
    """`name`, `name:text` or `name:text:unet`, or with `te=` and `unet=`; a weight that is no number is 1, and said."""
    positional = [each for each in arguments.split(":") if "=" not in each]
    named = dict(each.split("=", 1) for each in arguments.split(":") if "=" in each)
    name, *weights = positional or [""]
    text = _weight(named.get("te", weights[0] if weights else ""), 1.0)
    return Adapter(kind, name, text, _weight(named.get("unet", weights[1] if len(weights) > 1 else ""), text))


def _weight(number: str, default: float) -> float:
    with suppress(ValueError):
        if math.isfinite(value := float(number)):
            return value
    if number:
        warn(f"{number!r} in <lora:…> is no number; {default:g} is taken, as in the web UI")
    return default


def _write_part(part: Part) -> str:
    text = _write(part.nodes)
    _, colon, tail = text.rpartition(":")
    ambiguous = bool(colon and _PART_WEIGHT.fullmatch(tail))
    return f"{text}:{plain_number(part.weight)}" if part.weight != 1.0 or ambiguous else text


def _write(nodes: Nodes) -> str:
    return "".join(node if isinstance(node, str) else f"[{_inside(node)}]" for node in nodes)


def _inside(node: Edit | Alternate) -> str:
    if isinstance(node, Alternate):
        return "|".join(map(_write, node.options))
    before = f"{_write(node.before)}:" if node.before else ""
    return f"{before}{_write(node.after)}:{_number(node.when)}"


def _number(value: int | float) -> str:
    """A share keeps its point, since without one it would be a number of steps."""
    number = plain_number(value)
    return f"{number}.0" if isinstance(value, float) and "." not in number else number
