"""What the pictures show: emojibase's emoji that are neither people, flags nor symbols, faces included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fromnoise.data.codepoints import normalise
from fromnoise.data.fetching import members

__all__ = ["Concept", "Emojibase", "cluster", "read_emojibase"]

_UNWANTED_GROUPS = frozenset({"people-body", "component", "symbols", "flags"})

# Drawings that differ only in a detail which no caption can be expected to carry count as one thing to evaluate.
_CLUSTERS: Mapping[str, str] = MappingProxyType(
    {
        r".* o’clock|.*-thirty": "clock face",
        r"(waxing|waning) .* moon|(first|last) quarter moon": "partial moon",
        r"(first|last) quarter moon face": "quarter moon face",
        r"globe showing .*": "globe",
        r"(dollar|euro|pound|yen) banknote": "banknote",
        r"(blue|green|orange|closed) book": "closed book",
        r"(open|closed) mailbox with .* flag": "mailbox",
        r"(oncoming )?(automobile|taxi|bus|police car)": "\\2",
        r"magnifying glass tilted (left|right)": "magnifying glass",
        r"speaker (low|medium|high) volume": "speaker",
        r"(unlocked|locked)": "padlock",
        r"hourglass (not )?done": "hourglass",
        r"(sun behind .*|cloud with .*)": "\\1",
        r"chart (increasing|decreasing)": "chart",
    }
)


@dataclass(frozen=True)
class Concept:
    """One thing that pictures show. `tags` are emojibase's; `group` and `subgroup` are Unicode's slugs."""

    code_points: str
    label: str
    group: str
    subgroup: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Emojibase:
    """The wanted concepts by code points, and every name that the tables give them, the best name last."""

    concepts: Mapping[str, Concept]
    names: tuple[tuple[str, str], ...]


def cluster(label: str) -> str:
    """The name that near-identical concepts share; the label itself where there are none."""
    for pattern, name in _CLUSTERS.items():
        match = re.fullmatch(pattern, label)
        if match:
            return match.expand(name)
    return label


def read_emojibase(archive: Path) -> Emojibase:
    """Read emojibase-data's English table and its lists of names from the package's archive."""
    prefix = "package/"
    wanted = ("en/data.json", "meta/groups.json", "meta/unicode-names.json", "en/shortcodes/emojibase.json")
    files = {name.removeprefix(prefix): content for name, content in members(archive, ".json")}
    table, groups, unicode_names, shortcodes = (json.loads(files[name]) for name in wanted)
    concepts = {each.code_points: each for each in _wanted(table, groups)}
    names = [
        *((name, normalise(key)) for key, value in shortcodes.items() for name in _as_list(value)),
        *((name, normalise(key)) for key, name in unicode_names.items()),
        *((each.label, each.code_points) for each in concepts.values()),
    ]
    return Emojibase(MappingProxyType(concepts), tuple(pair for pair in names if pair[1] in concepts))


def _wanted(table: Iterable[Mapping[str, Any]], groups: Mapping[str, Any]) -> Iterable[Concept]:
    for entry in table:
        group = groups["groups"].get(str(entry.get("group")))
        if group is not None and group not in _UNWANTED_GROUPS:
            yield Concept(
                code_points=normalise(entry["hexcode"]),
                label=entry["label"],
                group=group,
                subgroup=groups["subgroups"][str(entry["subgroup"])],
                tags=tuple(entry.get("tags", ())),
            )


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
