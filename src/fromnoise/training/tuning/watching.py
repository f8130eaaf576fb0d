"""Knowing when to stop: a loss on fixed noise and timesteps, the best weights kept, and pictures on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fromnoise.images.sheets import contact_sheet
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import atomic_write
from fromnoise.runtime.seeds import generator
from fromnoise.training.callbacks import Averages
from fromnoise.training.learner import Callback, Learner
from fromnoise.training.tuning.samples import Sample
from fromnoise.training.tuning.task import Noisy, Tuning, TuningTask

PROBES = 32
"""Noisy pictures that the loss is measured on."""

BETTER = 1e-3
"""The relative gain that counts as one."""

SEED_OF_SAMPLES = 1


class Enough(Exception):  # noqa: N818
    """Raised inside a run to end it early and well; says why."""


class Watch(Callback):
    """Measures the loss on probes, keeps the best weights in `best.pt`, and ends the run when nothing gets better."""

    def __init__(self, folder: Path, samples: Sequence[Sample], averages: Averages, recipe: Tuning) -> None:
        """Averaged weights are judged where the recipe keeps some."""
        self.path, self.samples, self.averages = folder / "best.pt", samples, averages
        self.length, self.steps = recipe.average, recipe.steps
        self.every, self.patience = recipe.check_every, recipe.patience
        self.best, self.best_step, self.first, self.last = float("inf"), 0, float("nan"), float("nan")
        self._probes: list[Noisy] = []

    def start(self, learner: Learner) -> None:
        """Measure what there is before anything is learnt; a run that had ended early does not go on."""
        self._probes = self._made(learner.task)  # type: ignore[arg-type]
        if learner.step_index == 0:
            self.first = self.best = self.measure(learner)
            self._keep(learner, self.first)
        self._require_hope(learner)

    def after_step(self, learner: Learner) -> None:
        """Measure every so often."""
        if learner.step_index % self.every and learner.step_index != self.steps:
            return
        with averaged(learner, self.averages, self.length):
            self.last = self.measure(learner)
            if self.last < self.best * (1 - BETTER):
                self.best, self.best_step = self.last, learner.step_index
                self._keep(learner, self.last)
        self._require_hope(learner)

    def state(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best, "best_step": self.best_step, "first": self.first, "last": self.last}

    def load(self, state: dict[str, Any]) -> None:
        """Take it back."""
        for name, value in state.items():
            setattr(self, name, value)

    @torch.no_grad()
    def measure(self, learner: Learner) -> float:
        """The mean loss on the probes; the same weights give the same number."""
        task, device = learner.task, next(learner.task.model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16):
            losses = [float(task.loss(task.predict(each), each)) * len(each.captions) for each in self._probes]
        return sum(losses) / PROBES

    def restore(self, learner: Learner) -> None:
        """Give the module its best weights."""
        if self.path.exists():
            learner.task.model.load_state_dict(torch.load(self.path, weights_only=True))

    def _require_hope(self, learner: Learner) -> None:
        waited = learner.step_index - self.best_step
        if waited >= self.patience * self.every:
            raise Enough(
                f"stopped after {learner.step_index} steps: the loss on fixed noise has not got better than "
                f"{self.best:.4f} (step {self.best_step}) in {waited} steps"
            )

    def _keep(self, learner: Learner, loss: float) -> None:
        with atomic_write(self.path, overwrite=True) as temporary:
            torch.save(learner.task.model.state_dict(), temporary)

    def _made(self, task: TuningTask) -> list[Noisy]:
        """Batches of a size each: timesteps evenly from all, every probe with its own noise and first caption."""
        rows: dict[tuple[int, ...], list[tuple[Tensor, Tensor, int, str]]] = {}
        for index in range(PROBES):
            sample = self.samples[index % len(self.samples)]
            noise = torch.randn(sample.shape, generator=generator("probe", task.recipe.seed, index))
            time = int((index + 0.5) / PROBES * len(task.schedule))
            rows.setdefault(sample.shape, []).append((sample.latents[0], noise, time, sample.captions[0]))
        size = task.recipe.batch
        parts = [each[start : start + size] for each in rows.values() for start in range(0, len(each), size)]
        return [task.noisy(*zip(*part, strict=True)) for part in parts]


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


Draw = Callable[[], list[Image.Image]]
"""Draws the fixed prompts with the weights of now."""


class Samples(Callback):
    """Draws fixed prompts from fixed seeds every so many steps into `samples/`, the first time before any step."""

    def __init__(self, folder: Path, prompts: Sequence[str], draw: Draw, every: int) -> None:
        self.folder, self.prompts, self.draw, self.every = folder / "samples", prompts, draw, every

    def start(self, learner: Learner) -> None:
        """What the model drew before."""
        if self.every and not self.path(0).exists():
            self.show(learner.step_index)

    def after_step(self, learner: Learner) -> None:
        """What it draws now."""
        if self.every and learner.step_index % self.every == 0:
            self.show(learner.step_index)

    def show(self, step: int) -> Path:
        """Draw, and write the sheet of a step."""
        path = self.path(step)
        sheet = contact_sheet([self.draw()], column_labels=self.prompts, title=f"step {step}")
        self._write(path, sheet)
        return path

    def compare(self, step: int) -> None:
        """`sheet.png`: before above after."""
        from fromnoise.images.sheets import stacked

        before, after = (Image.open(each) for each in (self.path(0), self.show(step)))
        self._write(self.folder.parent / "sheet.png", stacked([before, after]))
        note(f"before and after: {self.folder.parent / 'sheet.png'}")

    def path(self, step: int) -> Path:
        """Where a step's sheet is."""
        return self.folder / f"step-{step:06d}.png"

    def _write(self, path: Path, sheet: Image.Image) -> None:
        with atomic_write(path, overwrite=True) as temporary:
            sheet.save(temporary, "PNG")
