"""Adapters by name, as `<lora:name:0.8>` in a prompt asks for them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from fromnoise.runtime.errors import UsageError

ENDINGS = (".safetensors", ".pt", ".ckpt", ".bin")
"""What adapters' files end in, the preferred first."""


def find_adapter(name: str, folders: Sequence[Path]) -> Path:
    """The file of that name, with or without its ending, in folders or in folders inside them.

    Only names are looked up, never paths: a prompt may come from somebody else. The first folder counts first, and of
    several files the preferred ending. UsageError naming close ones when there is none.
    """
    known = names_in(folders)
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3)
    stems = sorted({path.stem for path in known.values()})
    advice = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(stems) or 'none'}"
    where = ", ".join(map(str, folders))
    raise UsageError(f"no adapter called {name!r} in {where}; {advice}")


def names_in(folders: Sequence[Path]) -> dict[str, Path]:
    """Every adapter by its file's name, once without and once with its ending."""
    found: dict[str, Path] = {}
    for folder in folders:
        files = (path for path in folder.rglob("*") if path.suffix in ENDINGS and path.is_file())
        for path in sorted(files, key=lambda path: (ENDINGS.index(path.suffix), path)):
            found.setdefault(path.stem, path)
            found.setdefault(path.name, path)
    return found
