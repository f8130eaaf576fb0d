"""What every run shares: its folder, its resume, its clean stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from fromnoise.runtime.log import note
from fromnoise.training.callbacks import Averages, Checkpoints, LearningRate, Log, MixedPrecision, Progress
from fromnoise.training.learner import Callback, Learner, Task
from fromnoise.training.recipe import write_recipe

Show = Callable[[int, int, float, float, float], None]


def open_run(folder: Path, recipe: object) -> None:
    """Make the run folder and write the resolved recipe into it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, folder / "recipe.toml")


def adamw(model: nn.Module, beta2: float = 0.99, decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused; norms and biases do not decay."""
    learns = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in learns if each.ndim > 1], "weight_decay": decay},
        {"params": [each for each in learns if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, beta2), fused=True)


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
    beta2: float = 0.99,
    minutes: float = 3.0,
    extra: Iterable[Callback] = (),
) -> None:
    """Train `task` to `steps` steps in `folder`, going on from its checkpoint when `resume`."""
    checkpoints = Checkpoints(folder, minutes)
    shown = [Progress(steps, batch, show)] if show else []
    callbacks = [MixedPrecision(), rate, averages, Log(folder, batch), *extra, checkpoints, *shown]
    learner = Learner(task, adamw(task.model, beta2), callbacks)
    if resume and checkpoints.resume(learner):
        note(f"going on from step {learner.step_index} in {folder}")
    learner.fit(steps)
