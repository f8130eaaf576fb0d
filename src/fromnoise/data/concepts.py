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

# Labels, as patterns, of concepts that a person could not tell apart by their pictures: they count as one.
_CLUSTERS: Mapping[str, str] = MappingProxyType(
    {
        r".* o’clock|.*-thirty": "clock face",
        r"(waxing|waning) .* moon|(first|last) quarter moon": "partial moon",
        r"(first|last) quarter moon face": "quarter moon face",
        r"globe showing .*": "globe",
        r"(dollar|euro|pound|yen) banknote": "banknote",
        r"... place medal": "place medal",
        r"(open|closed) mailbox with .* flag": "mailbox",
        r"(?:oncoming )?(automobile|taxi|bus|police car)": r"\1",
        r"magnifying glass tilted (left|right)": "magnifying glass",
        r"speaker (low|medium|high) volume": "speaker",
        r"unlocked|locked": "padlock",
        r"hourglass (not )?done": "hourglass",
        r"chart (increasing|decreasing)": "chart",
        r"(inbox|outbox) tray": "tray",
        r"page (with curl|facing up)": "page",
        r"(tear-off |spiral )?calendar": "calendar",
        r"notebook( with decorative cover)?": "notebook",
        r"left speech bubble|speech balloon": "speech bubble",
        r"sun behind .*cloud": "sun behind cloud",
        r"cloud with lightning( and rain)?": "cloud with lightning",
        r"snowman( without snow)?": "snowman",
        r"airplane (departure|arrival)": "flying airplane",
        r"high-speed train|bullet train": "bullet train",
        r"tram( car)?": "tram",
        r"(two-hump )?camel": "camel",
        r"(spouting )?whale": "whale",
        r"(front-facing )?baby chick": "baby chick",
        r"heart suit|red heart": "red heart",
        r"camera( with flash)?": "camera",
        r"optical disk|dvd": "disc",
        r"smiling face|slightly smiling face|smiling face with smiling eyes": "smiling face",
        r"grinning face( with (big|smiling) eyes)?|grinning squinting face|beaming face .*": "grinning face",
        r"kissing face( with (closed|smiling) eyes)?": "kissing face",
        r"(slightly )?frowning face": "frowning face",
        r"hushed face|face with open mouth": "face with open mouth",
        r"anguished face|frowning face with open mouth": "anguished face",
        r"grinning cat( with smiling eyes)?": "grinning cat",
        r"(squinting |winking )?face with tongue": "face with tongue",
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
