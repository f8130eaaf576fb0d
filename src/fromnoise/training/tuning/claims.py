"""Folders of what a model drew for a run, which another run with other settings must not learn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write

FILE = "settings.json"


def claim(folder: Path, settings: Mapping[str, str | int | float | None]) -> None:
    """Say in a folder how what it keeps is drawn; UsageError where what lies there was drawn otherwise."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    drawn = any(each != path for each in folder.glob("[!.]*"))  # asked first: another process may claim it meanwhile
    if not path.exists():
        if drawn:
            raise UsageError(f"{folder} holds drawings, but not how they were made; remove it, or give another --run")
        with atomic_write(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if changed := [name for name, value in settings.items() if before.get(name) != value]:
        name = changed[0]
        raise UsageError(
            f"{folder} holds drawings with {name} {before.get(name)!r}, not {settings[name]!r}; "
            "give the same settings, or another --run"
        )
