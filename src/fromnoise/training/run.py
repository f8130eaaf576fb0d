"""What every run shares: its folder, its resume, its clean stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.training.callbacks import Averages, Checkpoints, LearningRate, Log, Progress
from fromnoise.training.learner import Callback, Task
from fromnoise.training.optimizers import Optimizer, adamw
from fromnoise.training.processes import Processes, launched, were_launched
from fromnoise.training.recipe import write_recipe
from fromnoise.training.record import Record

Show = Callable[[int, int, float, float, float], None]
"""Told after each step: done, total, loss, pictures per second, seconds left. A `Stop` that it raises leaves the run of
one process with a checkpoint, to be gone on from."""


def open_run(folder: Path, recipe: object) -> None:
    """Make the run folder and write the resolved recipe into it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, folder / "recipe.toml")


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
    if resume and checkpoints.resume(learner):
        note(f"going on from step {learner.step_index} in {folder}")
    learner.fit(steps)


def _alone() -> Processes:
    if were_launched() and launched().count > 1:
        raise UsageError("this trainer runs in one process; start it without accelerate launch")
    return Processes()
