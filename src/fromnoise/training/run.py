"""What every run shares: its folder, its resume, its clean stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fromnoise.runtime.log import note
from fromnoise.training.callbacks import Averages, Checkpoints, LearningRate, Log, MixedPrecision, Progress
from fromnoise.training.learner import Callback, Learner, Task
from fromnoise.training.optimizers import Optimizer, adamw
from fromnoise.training.recipe import write_recipe

Show = Callable[[int, int, float, float, float], None]


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
) -> None:
    """Train `task` to `steps` steps in `folder`, going on from its checkpoint when `resume`; AdamW unless said."""
    checkpoints = Checkpoints(folder, minutes)
    shown = [Progress(steps, batch, show)] if show else []
    device = next(task.model.parameters()).device.type
    callbacks = [MixedPrecision(device=device), rate, averages, Log(folder, batch), *extra, checkpoints, *shown]
    learner = Learner(task, optimizer or adamw(task.model.parameters()), callbacks)
    if resume and checkpoints.resume(learner):
        note(f"going on from step {learner.step_index} in {folder}")
    learner.fit(steps)
