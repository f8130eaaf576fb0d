"""What every run shares: its folder, its resume, its clean stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from fromnoise.data import Dataset
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.training.callbacks import Averages, Checkpoints, LearningRate, Log, Progress
from fromnoise.training.claims import Settings, difference, write
from fromnoise.training.learner import Callback, Task
from fromnoise.training.optimizers import Optimizer, adamw
from fromnoise.training.processes import Processes, launched, were_launched
from fromnoise.training.recipe import read_recipe, write_recipe
from fromnoise.training.record import Record

R = TypeVar("R")

Show = Callable[[int, int, float, float, float], None]
"""Told after each step: done, total, loss, pictures per second, seconds left. A `Stop` that it raises leaves the run of
one process with a checkpoint, to be gone on from."""


RECIPE, DATASET = "recipe.toml", "dataset.json"
"""What a run's folder says of how it learns, and from what."""

FIXED = frozenset(
    {
        *("seed", "init", "freeze_encoder"),
        *("architecture", "width", "shades", "sides"),
        *("vocabulary", "positions", "layers", "heads"),
    }
)
"""Fields of a recipe that a resumed run can't change: its checkpoint would not fit, or not be what they say."""


def settled(default: R, file: Path | None, folder: Path, *, resume: bool) -> R:
    """The recipe of a run: the default, or that of the run to be resumed, with the fields that the file names replaced.

    UsageError for a bad file, and where there is no run to go on from.
    """
    return read_recipe(own_recipe(default, folder) if resume else default, file)


def own_recipe(default: R, folder: Path) -> R:
    """The recipe that a run's folder keeps; UsageError where there is none."""
    require_begun(folder)
    return read_recipe(default, folder / RECIPE)


def require_begun(folder: Path) -> None:
    """UsageError where there is no run to go on from, stopped before its first checkpoint though it may be."""
    if not (folder / RECIPE).is_file():
        raise UsageError(f"there is no run in {folder} to go on from; leave out --resume to start one")


def begin_run(folder: Path, recipe: object, dataset: Dataset, *, resume: bool) -> None:
    """Open the folder of a run that learns from a dataset, and write there what it learns from and how.

    A note says which settings a resumed run has that it had not. UsageError, before anything is written, where it
    can't have them or learnt from another dataset.
    """
    learns = {"pictures": len(dataset), "metadata_sha256": dataset.manifest.metadata_sha256}
    if resume:
        said = _changes(folder, recipe)
        _require_same_dataset(folder, learns)
        if said:
            note(f"{folder} goes on with other settings: {', '.join(said)}")
    open_run(folder, recipe)
    write(folder / DATASET, learns)


def open_run(folder: Path, recipe: object) -> None:
    """Make the run folder and write the resolved recipe into it; UsageError where that can't be done."""
    write_recipe(recipe, folder / RECIPE)


def _changes(folder: Path, recipe: object) -> list[str]:
    before = own_recipe(type(recipe)(), folder)
    changed = [name for name, value in vars(recipe).items() if value != getattr(before, name)]
    if fixed := [name for name in changed if name in FIXED]:
        was, now = (getattr(each, fixed[0]) for each in (before, recipe))
        raise UsageError(
            f"{folder} was started with {fixed[0]} {was!r}, which can't become {now!r} on the way; "
            "leave it as it was, or give another --run"
        )
    return [f"{name} {getattr(before, name)!r} → {getattr(recipe, name)!r}" for name in changed]


def _require_same_dataset(folder: Path, learns: Settings) -> None:
    path = folder / DATASET
    if not path.exists():
        note(f"{folder} doesn't say which dataset it was started with; it is taken to be this one")
    elif difference(path, learns):
        raise UsageError(f"{folder} was started with another dataset; give that one, or another --run")


def require_pictures(count: int, **wanted: int) -> None:
    """UsageError where a step is to have more of something, by the recipe's field, than there is to learn from."""
    for name, size in wanted.items():
        if size > count:
            raise UsageError(f"{name} is {size}, and there are {count} to learn from; give at most as many")


def fit(
    folder: Path,
    task: Task,
    rate: LearningRate,
    averages: Averages,
    *,
    steps: int,
    batch: int,
    show: Show | None = None,
    resume: bool = True,
    optimizer: Optimizer | None = None,
    minutes: float = 3.0,
    extra: Iterable[Callback] = (),
    record: Record | None = None,
    processes: Processes | None = None,
) -> None:
    """Train `task` to `steps` steps in `folder`, going on from its checkpoint when `resume`; AdamW unless said.

    `batch` is what all `processes` learn from in a step; a task that can share it names them, and only the main one
    writes. UsageError when several were launched for a task that can't.
    """
    processes = processes or _alone()
    checkpoints = Checkpoints(folder, minutes)
    callbacks = [processes.precision(next(task.model.parameters()).device.type), rate, averages]
    if processes.main:
        shown = [Progress(steps, batch, show)] if show else []
        callbacks += [Log(record or Record(folder), batch), *extra, checkpoints, *shown]
    else:
        callbacks += extra
    learner = processes.learner(task, optimizer or adamw(task.model.parameters()), callbacks)
    if resume:
        found = checkpoints.resume(learner)
        note(
            f"going on from step {learner.step_index} in {folder}"
            if found
            else f"{folder} has no checkpoint yet; starting with the first step"
        )
    learner.fit(steps)


def _alone() -> Processes:
    if were_launched() and launched().count > 1:
        raise UsageError("this trainer runs in one process; start it without accelerate launch")
    return Processes()
