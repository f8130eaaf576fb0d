"""What rides along with a Learner: precision, learning rate, averages, checkpoints, samples, log and progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.runtime.device import mixed_precision
from fromnoise.runtime.errors import UsageError
from fromnoise.training.learner import Callback, Learner
from fromnoise.training.record import Record
from fromnoise.training.saving import read, save


class MixedPrecision(Callback):
    """Forward and loss in `mixed_precision`; the weights and their updates stay in float32."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def around_predict(self, learner: Learner) -> AbstractContextManager[Any]:
        """torch's autocast, or nothing."""
        return mixed_precision(self.device)


class LearningRate(Callback):
    """Linear warm-up, constant, then (only when a run is to end) a linear decay from `decay_at` to `end`."""

    def __init__(self, rate: float, warmup: int, decay_at: int | None = None, end: int | None = None) -> None:
        self.rate, self.warmup, self.decay_at, self.end = rate, warmup, decay_at, end

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        rate = self.rate * min(1.0, (step + 1) / max(self.warmup, 1))
        if self.decay_at is None or self.end is None or step < self.decay_at:
            return rate
        return rate * max(self.end - step, 0) / max(self.end - self.decay_at, 1)

    def before_step(self, learner: Learner) -> None:
        """Set this step's rate."""
        for group in learner.optimizer.param_groups:
            group["lr"] = self.at(learner.step_index)


class Averages(Callback):
    """Exponential moving averages of the weights, one for each length in steps (Karras et al. 2024 use several).

    Updated every few steps with the decay taken to that power, which costs next to nothing and changes little.
    """

    def __init__(self, model: nn.Module, lengths: tuple[int, ...], every: int = 8) -> None:
        self.model, self.every = model, every
        self.averages = {length: [each.detach().clone() for each in model.parameters()] for length in lengths}

    def after_step(self, learner: Learner) -> None:
        """Move each average toward the weights; a young run is averaged over at most a tenth of its steps."""
        if learner.step_index % self.every:
            return
        weights = [each.detach() for each in learner.task.model.parameters()]
        for length, average in self.averages.items():
            reach = max(min(length, learner.step_index / 10), self.every)
            torch._foreach_lerp_(average, weights, 1.0 - (1.0 - 1.0 / reach) ** self.every)

    def state(self) -> dict[str, Any]:
        """All averages."""
        return {str(length): average for length, average in self.averages.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Take back those whose length is still asked for; others begin with the weights that were read."""
        weights = [each.detach() for each in self.model.parameters()]
        for length, average in self.averages.items():
            for mine, theirs in zip(average, state.get(str(length), weights), strict=True):
                mine.copy_(theirs)

    def weights(self, model: nn.Module, length: int) -> dict[str, Tensor]:
        """`model`'s state dict with the parameters averaged over `length`."""
        names = (name for name, _ in model.named_parameters())
        return {**model.state_dict(), **dict(zip(names, self.averages[length], strict=True))}


CHECKPOINT = "checkpoint.pt"
"""What a run goes on from, in its folder."""

MISFITS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)
"""What weights and states of another shape or kind make modules and optimisers say."""


class Checkpoints(Callback):
    """Keeps a checkpoint in the run folder, written whole every `minutes` and at the end."""

    def __init__(self, folder: Path, minutes: float = 3.0) -> None:
        self.path, self.seconds = folder / CHECKPOINT, 60 * minutes
        self._last = time.monotonic()

    def after_step(self, learner: Learner) -> None:
        """Save when the time has come."""
        if time.monotonic() - self._last >= self.seconds:
            self.save(learner)

    def finish(self, learner: Learner) -> None:
        """Save the end of the run."""
        self.save(learner)

    def save(self, learner: Learner) -> None:
        """Write now."""
        save(self.path, learner.state())
        self._last = time.monotonic()

    def resume(self, learner: Learner) -> bool:
        """Go on from the folder's checkpoint; False when there is none. Only tensors and numbers are read.

        Damaged for one that isn't whole, UsageError for one of something else than what is trained.
        """
        if not self.path.exists():
            return False
        try:
            learner.load(read(self.path))
        except torch.OutOfMemoryError:
            raise
        except MISFITS as error:
            raise UsageError(f"{self.path} is not of what is trained here; give the --run that is") from error
        return True


class Every(Callback):
    """Call `action(learner)` every so many steps and at the end: samples, evaluations, exports."""

    def __init__(self, steps: int, action: Callable[[Learner], None]) -> None:
        self.steps, self.action = steps, action

    def after_step(self, learner: Learner) -> None:
        """When the count is round."""
        if learner.step_index % self.steps == 0:
            self.action(learner)


class Log(Callback):
    """Records loss, rate and pictures per second, each the mean over `every` steps, or what is left."""

    def __init__(self, record: Record, batch: int, every: int = 50) -> None:
        self.record, self.batch, self.every = record, batch, every
        self._losses: list[float] = []
        self._last = time.monotonic()

    def after_step(self, learner: Learner) -> None:
        """Remember the loss; record the mean of the last few."""
        self._losses.append(learner.last_loss)
        if len(self._losses) == self.every:
            self._write(learner)

    def finish(self, learner: Learner) -> None:
        """Record what is left."""
        if self._losses:
            self._write(learner)

    def _write(self, learner: Learner) -> None:
        self.record.figures(
            learner.step_index,
            loss=sum(self._losses) / len(self._losses),
            rate=learner.optimizer.param_groups[0]["lr"],
            pictures_per_second=len(self._losses) * self.batch / (time.monotonic() - self._last),
        )
        self._losses, self._last = [], time.monotonic()


class Progress(Callback):
    """Tells `show(done, total, loss, pictures per second, seconds left)` after each step: a progress bar, say."""

    def __init__(self, total: int, batch: int, show: Callable[[int, int, float, float, float], None]) -> None:
        self.total, self.batch, self.show = total, batch, show

    def start(self, learner: Learner) -> None:
        """Start the clock."""
        self._start, self._first = time.monotonic(), learner.step_index

    def after_step(self, learner: Learner) -> None:
        """Report."""
        seconds = (time.monotonic() - self._start) / (learner.step_index - self._first)
        left = (self.total - learner.step_index) * seconds
        self.show(learner.step_index, self.total, learner.last_loss, self.batch / seconds, left)
