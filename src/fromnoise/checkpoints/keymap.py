"""Declared key maps: how a part's tensors are called in one layout and in another.

A map is a table of rules, each a pair of `{}`-templates (torchtitan's way of mapping state dicts). A template names a
tensor, or a module with everything in it; the longest that fits decides. Rules are expanded over the blocks that a
config has, so that a map is a finite table, the same in both directions, and can be checked to be one to one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fromnoise.checkpoints.stored import Stored, Tensors, joined
from fromnoise.runtime.errors import FromnoiseError

Json = Mapping[str, Any]
Fields = Mapping[str, Any]
Places = Callable[[Json], Iterable[Fields]]
"""The values of a template's fields, once for each block of a config."""


class Shape(Protocol):
    """How a tensor of the single file becomes that of the folder, and the other way round."""

    @property
    def index(self) -> int:
        """Its place among the folder's tensors that the single file holds as one."""
        ...

    def take(self, stored: Stored) -> Stored:
        """The folder's tensor."""
        ...

    def give(self, parts: Sequence[Stored]) -> Stored:
        """The single file's tensor, of the folder's that go into it."""
        ...


class Same:
    """The same tensor."""

    index = 0

    def take(self, stored: Stored) -> Stored:
        """As it is."""
        return stored

    def give(self, parts: Sequence[Stored]) -> Stored:
        """As it is."""
        return parts[0]


class OneByOne(Same):
    """A matrix in the folder that is the weight of a 1x1 convolution in the single file."""

    def take(self, stored: Stored) -> Stored:
        """Without the trailing ones, where it has them; biases are left alone."""
        return stored.reshaped(*stored.shape[:2]) if stored.shape[2:] in ((1,), (1, 1)) else stored

    def give(self, parts: Sequence[Stored]) -> Stored:
        """With two trailing ones."""
        return parts[0].reshaped(*parts[0].shape, 1, 1) if len(parts[0].shape) == 2 else parts[0]


class Transposed(Same):
    """A matrix that has rows for columns in the single file."""

    def take(self, stored: Stored) -> Stored:
        """Rows and columns swapped."""
        return stored.transposed() if len(stored.shape) == 2 else stored

    def give(self, parts: Sequence[Stored]) -> Stored:
        """Rows and columns swapped back."""
        return self.take(parts[0])


@dataclass(frozen=True)
class Third:
    """One of three tensors (query, key, value) that the single file stacks in one."""

    index: int

    def take(self, stored: Stored) -> Stored:
        """Its third of the rows; none is lost, so that a number of rows that three does not divide shows."""
        rows = stored.shape[0] if stored.shape else 0
        return stored.rows(self.index * rows // 3, (self.index + 1) * rows // 3)

    def give(self, parts: Sequence[Stored]) -> Stored:
        """All three, stacked."""
        return joined(parts)


SAME = Same()
ONE_BY_ONE = OneByOne()
TRANSPOSED = Transposed()


def once(config: Json) -> Iterable[Fields]:
    """For templates without fields."""
    return ({},)


def _fields(places: Places, config: Json) -> list[Fields]:
    try:
        return list(places(config))
    except (TypeError, ValueError, AttributeError) as error:
        kind = config.get("_class_name") or config.get("architectures")
        raise FromnoiseError(f"the config of a {kind} is damaged: {error}") from error


@dataclass(frozen=True)
class Rule:
    """A tensor or module: what it is called in the folder and in the single file, for each of `places`."""

    folder: str
    single: str
    places: Places = once
    shape: Shape = SAME

    def expanded(self, config: Json) -> Iterator[tuple[str, str, Shape]]:
        """The pairs of names for a config; FromnoiseError when its fields are not what they should be."""
        for fields in _fields(self.places, config):
            yield self.folder.format(**fields), self.single.format(**fields), self.shape


@dataclass(frozen=True)
class Extra:
    """A tensor or module of the single file that nobody needs, for each of `places`: a declared left-over."""

    single: str
    places: Places = once


@dataclass(frozen=True)
class Mapped:
    """What a map made of tensors: by their new keys; the declared extras; and keys that it has no rule for."""

    tensors: dict[str, Stored]
    extras: dict[str, Stored]
    left_over: tuple[str, ...]


@dataclass(frozen=True)
class KeyMap:
    """The rules of one layout. `spellings` are other names for the single file's side, read but never written.

    With `lenient`, keys without a rule keep their names: for layouts that differ from the folder in few places.
    """

    rules: tuple[Rule, ...] = ()
    spellings: tuple[Rule, ...] = ()
    extras: tuple[Extra, ...] = ()
    lenient: bool = False

    def to_folder(self, tensors: Tensors, config: Json) -> Mapped:
        """The folder's tensors from the single file's, still unread. Two for one name leave the second over."""
        table = _by_single((*self.rules, *self.spellings), config)
        extras = {each.single.format(**fields) for each in self.extras for fields in _fields(each.places, config)}
        mapped = Mapped({}, {}, ())
        left_over: list[str] = []
        for key, stored in tensors.items():
            found = _longest(key, table)
            names = [(name + key[len(found) :], shape) for name, shape in table.get(found, ())]
            if len(_longest(key, extras)) > len(found):
                mapped.extras[key] = stored
            elif (not names and not self.lenient) or any(name in mapped.tensors for name, _ in names):
                left_over.append(key)
            else:
                mapped.tensors.update({name: shape.take(stored) for name, shape in names} or {key: stored})
        return Mapped(mapped.tensors, mapped.extras, tuple(left_over))

    def to_single(self, tensors: Tensors, config: Json) -> Mapped:
        """The single file's tensors from the folder's, still unread."""
        table = {folder: (single, shape) for rule in self.rules for folder, single, shape in rule.expanded(config)}
        groups: dict[str, list[tuple[Shape, Stored]]] = {}
        left_over: list[str] = []
        for key, stored in tensors.items():
            found = _longest(key, table)
            if not found and not self.lenient:
                left_over.append(key)
                continue
            single, shape = table.get(found, ("", SAME))
            groups.setdefault(single + key[len(found) :], []).append((shape, stored))
        return Mapped({name: _given(group) for name, group in groups.items()}, {}, tuple(left_over))


def _by_single(rules: Iterable[Rule], config: Json) -> dict[str, list[tuple[str, Shape]]]:
    """For each name in the single file, the folder's names for it: one, or three where it is stacked."""
    table: dict[str, list[tuple[str, Shape]]] = {}
    for rule in rules:
        for folder, single, shape in rule.expanded(config):
            table.setdefault(single, []).append((folder, shape))
    return table


def _longest(key: str, names: Container[str]) -> str:
    """The longest of `names` that is `key` itself or a module that it is in; "" when there is none."""
    while key and key not in names:
        key = key.rpartition(".")[0]
    return key


def _given(group: list[tuple[Shape, Stored]]) -> Stored:
    ordered = sorted(group, key=lambda each: each[0].index)
    return ordered[0][0].give([stored for _, stored in ordered])
