"""What of a folder or a file is published. Of a training run's folder it is the result and how it came about."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from fromnoise.runtime.errors import UsageError

CARD = "README.md"
RECIPE, LOG = "recipe.toml", "log.jsonl"
LEFT = (".tmp", ".lock", ".incomplete", ".pyc")
STATES = ("checkpoint.pt", "best.pt")
"""What only going on with a run needs; the trainers keep more of it, and all is left out."""

PASSING = "now.safetensors"
"""The weights that a run's last sample pictures were drawn with, which need not be the best ones."""

LEARNT_FROM = "training.json"
"""Where a run says what it learns from, by the names alone and not where they are."""

INDEX, CONFIG = "model_index.json", "config.json"
STORY = (RECIPE, LOG, LEARNT_FROM, "report.json", "sheet.png", "samples/*.png", "LICENSE*", "LICENCE*", "NOTICE*")
"""What tells of a run, and goes along with its result."""


def contents(source: Path) -> dict[str, Path]:
    """Everything to publish by its name there; hidden and temporary files are not, nor a run's own states.

    Raises UsageError where there is nothing, and for a run without a result or with several.
    """
    if source.is_file():
        return {source.name: source}
    if not source.is_dir():
        raise UsageError(f"there is nothing at {source} to publish")
    if is_run(source):
        card = {CARD: source / CARD} if (source / CARD).is_file() else {}
        return {**card, **story(source), **contents(result(source))}
    kept = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*")) if _wanted(source, path)}
    if not kept:
        raise UsageError(f"{source} is empty; there is nothing to publish")
    return kept


def is_run(folder: Path) -> bool:
    """Whether a folder is a training run's: recipe and log beside a state to go on from."""
    if (folder / INDEX).exists() or not all((folder / name).is_file() for name in (RECIPE, LOG)):
        return False
    return any((folder / name).is_file() for name in STATES)


def result(run: Path) -> Path:
    """What was learnt in a run: its model folder or its file; UsageError where there is none, or more than one."""
    found = [*_models(run), *(path for path in sorted(run.glob("*.safetensors")) if path.name != PASSING)]
    if not found:
        raise UsageError(
            f"{run} holds no result: --resume finishes the training; one that -o put elsewhere is published with "
            f"`fromnoise push RESULT OWNER/NAME --run {run}`"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{run} holds several results ({names}); publish one: `fromnoise push {found[0]} OWNER/NAME`")
    return found[0]


def story(run: Path) -> dict[str, Path]:
    """A run's recipe, log, figures and sample pictures; UsageError for a folder that is no run's."""
    if not (run / RECIPE).is_file():
        raise UsageError(f"{run} is no training run: it has no {RECIPE}")
    found = chain.from_iterable(sorted(run.glob(pattern)) for pattern in STORY)
    return {path.relative_to(run).as_posix(): path for path in found if _wanted(run, path)}


def left_out(source: Path, files: dict[str, Path]) -> list[str]:
    """The names in a run's folder of which nothing is published; none for anything else."""
    if not is_run(source):
        return []
    taken = {path.relative_to(source).parts[0] for path in files.values() if path.is_relative_to(source)}
    return sorted(path.name for path in source.iterdir() if path.name[0] != "." and path.name not in taken)


def _models(run: Path) -> Iterator[Path]:
    """The folders in a run that hold a model or a part."""
    for folder in sorted(run.iterdir()):
        if folder.name[0] == ".":
            continue
        if (folder / INDEX).is_file() or ((folder / CONFIG).is_file() and any(folder.glob("*.safetensors"))):
            yield folder


def _wanted(folder: Path, path: Path) -> bool:
    """Whether a path below a folder is a file that is neither hidden nor temporary."""
    parts = path.relative_to(folder).parts
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return path.is_file() and not hidden and path.suffix not in LEFT
