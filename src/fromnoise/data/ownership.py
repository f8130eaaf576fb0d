"""Which files of a dataset folder are ours: nothing else is ever removed, and a stranger's folder is not built in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from fromnoise.data.records import MANIFEST, METADATA, PICTURES, PIXELS, PIXELS_HASH, WORDS
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write

__all__ = ["begin", "end", "require_ours", "tidy"]

_BEGUN = "fromnoise-build.json"
"""The names of the pictures that builds under way write; gone once the manifest is there."""

_OTHERS = frozenset({MANIFEST, METADATA, PIXELS, PIXELS_HASH, WORDS, _BEGUN})

_TEMPORARY = re.compile(r"\.(.+)-[a-z0-9_]{8}(\.\w+)")
"""What `runtime.paths.atomic_write` calls a file until it is whole."""


def require_ours(folder: Path) -> None:
    """UsageError unless the folder is empty, absent, a dataset of ours or a begun build of one."""
    if not folder.is_dir():
        return
    ours = _is_manifest(folder / MANIFEST) or bool(_begun(folder)) or any(_recorded(folder))
    if not ours and any(folder.iterdir()):
        raise UsageError(f"{folder} has files that are no dataset; name a new or empty folder")


def begin(folder: Path, names: Iterable[str]) -> None:
    """Note which pictures are going to be written, beside those of a build that was broken off."""
    known = dict.fromkeys([*_begun(folder), *names])
    with atomic_write(folder / _BEGUN, overwrite=True) as temporary:
        temporary.write_text(json.dumps(list(known)), encoding="utf-8")


def tidy(folder: Path, wanted: Iterable[str]) -> None:
    """Remove our pictures that are not `wanted`, and what was half written; records of a new build come after."""
    own = {name for name in (*_recorded(folder), *_begun(folder)) if _is_picture(name)}
    for name in own.difference(wanted):
        (folder / name).unlink(missing_ok=True)
    for temporary in _temporaries(folder, own | _OTHERS):
        temporary.unlink(missing_ok=True)


def end(folder: Path) -> None:
    """Forget the note: the manifest is written."""
    (folder / _BEGUN).unlink(missing_ok=True)


def _is_manifest(path: Path) -> bool:
    found = _json(_text(path))
    return isinstance(found, dict) and {"format", "metadata_sha256", "sources"} <= set(found)


def _recorded(folder: Path) -> Iterator[str]:
    """The pictures that the folder's metadata names."""
    for found in map(_json, _text(folder / METADATA).splitlines()):
        if isinstance(found, dict) and {"file_name", "drawing_group", "judge_fold"} <= set(found):
            yield str(found["file_name"])


def _begun(folder: Path) -> list[str]:
    found = _json(_text(folder / _BEGUN))
    return [str(name) for name in found] if isinstance(found, list) else []


def _is_picture(name: str) -> bool:
    """True for a PNG below the folder of pictures, and not for a path that leads out of it."""
    path = PurePosixPath(name)
    return path.parts[:1] == (PICTURES,) and path.suffix == ".png" and ".." not in path.parts


def _temporaries(folder: Path, own: Iterable[str]) -> Iterator[Path]:
    """Files beside our own that are named as `atomic_write` names theirs."""
    paths = {folder / name for name in own}
    for parent in {path.parent for path in paths}:
        for found in parent.glob(".*"):
            match = _TEMPORARY.fullmatch(found.name)
            if match and parent / f"{match[1]}{match[2]}" in paths:
                yield found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
