"""What lies in a model's folder beside its parts: never read here, but copied along from folder to folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import FEW_STEPS, TINY

TUNABLE = (FEW_STEPS, TINY)
"""What still serves a model whose weights changed."""

COMPANIONS = ("README.md", "concepts.json", "concepts.safetensors", *TUNABLE)
"""All that there may be: its card and what it knows, too."""


def beside(model: Path, names: Iterable[str] = COMPANIONS) -> list[Path]:
    """Those that a model has; none where it is a single file."""
    return [model / name for name in names if (model / name).exists()]


def copy_along(model: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy those into another folder, of a folder the files; FromnoiseError where they can't be read or written."""
    for path in beside(model, names):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        try:
            for file in filter(Path.is_file, files):
                copy = folder / file.relative_to(model)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, copy)
        except OSError as error:
            raise FromnoiseError(f"{path} can't be copied: {error.strerror or error}") from error
