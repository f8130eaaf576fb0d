"""What a run keeps, and what it was made of: no run learns from what other settings, pictures or weights made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import atomic_write
from fromnoise.training.saving import Damaged, read, save

T = TypeVar("T")

Settings = Mapping[str, str | int | float | None]

FILE = "settings.json"


def claim(folder: Path, settings: Settings) -> None:
    """Say in a folder how what it keeps is drawn; UsageError where what lies there was drawn otherwise."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    drawn = any(each != path for each in folder.glob("[!.]*"))  # asked first: another process may claim it meanwhile
    if not path.exists():
        if drawn:
            raise UsageError(f"{folder} holds drawings, but not how they were made; remove it, or give another --run")
        write(path, settings)
    elif changed := difference(path, settings):
        name, before = changed
        raise UsageError(
            f"{folder} holds drawings with {name} {before!r}, not {settings[name]!r}; "
            "give the same settings, or another --run"
        )


def write(path: Path, settings: Settings) -> None:
    """Say in a file what something is made of."""
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def difference(path: Path, settings: Settings) -> tuple[str, object] | None:
    """The first setting of which the file says otherwise, and what it says; UsageError for one that can't be read."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        return next(((name, before.get(name)) for name, value in settings.items() if before.get(name) != value), None)
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"can't read {path}: {error}; give another --run") from error


def kept(path: Path, settings: Settings, make: Callable[[], T]) -> T:
    """What `make` gives, as tensors, numbers and text, kept in a file between runs.

    It is made again where that file was made with other settings or is damaged, and a note says so.
    """
    if path.exists():
        try:
            found = read(path)
        except Damaged:
            note(f"{path} is damaged; it is made again")
        else:
            if isinstance(found, dict) and found.get("settings") == settings:
                return found["made"]
            note(f"{path} is of other pictures or another autoencoder; it is made again")
    made = make()
    save(path, {"settings": dict(settings), "made": made})
    return made
