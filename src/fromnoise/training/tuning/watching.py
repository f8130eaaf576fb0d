"""Knowing when to stop: a loss on fixed noise and timesteps, drift from the base model, and the best weights kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fromnoise.training.callbacks import Averages
from fromnoise.training.learner import Callback, Learner, Stop
from fromnoise.training.record import Record
from fromnoise.training.saving import read, save
from fromnoise.training.tuning.controls import Controls
from fromnoise.training.tuning.samples import HeldOut
from fromnoise.training.tuning.task import TuningTask

PROBES = 32
"""Noisy pictures that the loss is measured on."""

BETTER = 1e-3
"""The relative gain that counts as one."""

KEPT = ("best", "best_step", "best_drift", "first", "last", "drift", "seconds")
"""What a checkpoint remembers of a Watch."""


class Enough(Stop):
    """Nothing gets better, or too much gets worse."""


class Watch(Callback):
    """Measures loss and drift, keeps the best weights in `best.pt`, and ends the run when nothing gets better.

    Averaged weights are judged where the recipe keeps some. `seconds` is what the last check took.
    """

    def __init__(self, task: TuningTask, folder: Path, held: HeldOut, averages: Averages, record: Record) -> None:
        self.task, self.path, self.held, self.averages, self.record = task, folder / "best.pt", held, averages, record
        self.recipe, self.controls = task.recipe, Controls(task)
        self.best, self.best_step, self.best_drift, self.drift, self.seconds = float("inf"), 0, 0.0, 0.0, 0.0
        self.first, self.last = float("nan"), float("nan")
        self._probes = task.probes(held.samples, PROBES)

    def start(self, learner: Learner) -> None:
        """Measure what there is before anything is learnt; a run that had ended early does not go on."""
        if learner.step_index == 0:
            self.controls.remember(learner)
            self._check(learner)
            self.first = self.last
        self._require_hope(learner)

    def after_step(self, learner: Learner) -> None:
        """Measure every so often."""
        if learner.step_index % self.recipe.check_every and learner.step_index != self.recipe.steps:
            return
        with averaged(learner, self.averages, self.recipe.average):
            self._check(learner)
        self._require_hope(learner)

    def state(self) -> dict[str, Any]:
        """The best so far, and what the base model made of the control prompts."""
        return {**{name: getattr(self, name) for name in KEPT}, "controls": self.controls.base}

    def load(self, state: dict[str, Any]) -> None:
        """Take it back."""
        for name in KEPT:
            setattr(self, name, state[name])
        self.controls.base = state["controls"]

    @torch.no_grad()
    def measure(self, learner: Learner) -> float:
        """The mean loss on the probes, of which every process takes a share; the same weights give the same number."""
        task, processes = self.task, self.task.processes
        with learner.around_predict():
            mine = self._probes[processes.rank :: processes.count]
            total = sum(float(task.loss(task.predict(each), each)) * len(each.captions) for each in mine)
        return processes.total(total) / PROBES

    def restore(self) -> None:
        """Give the module its best weights."""
        if self.path.exists():
            self.task.model.load_state_dict(read(self.path, "give another --run"))

    def say(self, text: str) -> None:
        """Tell a person, now and in the log; one process speaks for all."""
        if self.task.processes.main:
            self.record.say(text)

    def _check(self, learner: Learner) -> None:
        before, step = time.monotonic(), learner.step_index
        self.last, processes = self.measure(learner), self.task.processes
        self.drift = processes.total(self.controls.drift(learner)) / processes.count
        self.seconds = time.monotonic() - before
        if self.last < self.best * (1 - BETTER) and not self._too_far():
            self.best, self.best_step, self.best_drift = self.last, step, self.drift
            self._keep()
        if processes.main:
            self.record.figures(step, held_out_loss=self.last, drift=self.drift)

    def _require_hope(self, learner: Learner) -> None:
        step, waited = learner.step_index, learner.step_index - self.best_step
        if self._too_far():
            raise Enough(
                f"stopped after {step} steps: predictions for control prompts are {self.drift:.3f} away from the base "
                f"model's, more than {self.recipe.most_drift:g}"
            )
        if waited >= self.recipe.patience * self.recipe.check_every:
            raise Enough(
                f"stopped after {step} steps: the loss on {self.held.name} has not got better than {self.best:.4f} "
                f"(step {self.best_step}) in {waited} steps; drift on control prompts {self.drift:.3f}"
            )

    def _too_far(self) -> bool:
        return 0 < self.recipe.most_drift < self.drift

    def _keep(self) -> None:
        if self.task.processes.main:
            save(self.path, self.task.model.state_dict())


@contextmanager
def averaged(learner: Learner, averages: Averages, length: int) -> Iterator[None]:
    """While this lasts the module has its averaged weights; afterwards its own tensors, bit for bit."""
    if not length:
        yield
        return
    parameters = list(learner.task.model.parameters())
    own = [each.data for each in parameters]
    try:
        for each, average in zip(parameters, averages.averages[length], strict=True):
            each.data = average
        yield
    finally:
        for each, data in zip(parameters, own, strict=True):
            each.data = data
