"""Several processes that train one model, launched by accelerate: each takes its share of a batch; one of them writes.

Every process has the whole model and works on pictures of its own; gradients are averaged before each step. What a
process draws is a function of (seed, epoch, sample), so that n processes of a batch equal one of n batches within
float error, wherever the loss is a mean over pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fromnoise.runtime.errors import UsageError
from fromnoise.training.callbacks import MixedPrecision
from fromnoise.training.learner import Callback, Learner, Task
from fromnoise.training.optimizers import Optimizer

LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "WORLD_SIZE")
"""What accelerate and torchrun leave in the environment."""


@dataclass(frozen=True)
class Processes:
    """This process among those of its run; alone, and without accelerate, unless they were launched together."""

    accelerator: Any = None

    @property
    def rank(self) -> int:
        """Which one this is, from 0."""
        return self.accelerator.process_index if self.accelerator else 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self.accelerator.num_processes if self.accelerator else 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def device(self) -> str | None:
        """Where this process computes; None where nobody said."""
        return str(self.accelerator.device) if self.accelerator else None

    def total(self, value: float) -> float:
        """The sum of all processes' values, the same number for each of them."""
        if self.count == 1:
            return value
        mine = torch.tensor([value], dtype=torch.float32, device=self.accelerator.device)
        return float(self.accelerator.reduce(mine, reduction="sum"))

    def wait(self) -> None:
        """Go on when all processes have come this far."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def precision(self, device: str) -> Callback:
        """The precision that `accelerate launch --mixed_precision` names; alone `mixed_precision`."""
        return LaunchedPrecision(self.accelerator) if self.accelerator else MixedPrecision(device=device)

    def learner(self, task: Task, optimizer: Optimizer, callbacks: Iterable[Callback] = ()) -> Learner:
        """The Learner; of several processes one whose gradients are averaged."""
        if self.accelerator is None:
            return Learner(task, optimizer, callbacks)
        return SharingLearner(self.accelerator, task, optimizer, callbacks)


class SharingLearner(Learner):
    """A Learner whose gradients and loss are means over all processes; accelerate scales them where it must."""

    def __init__(self, accelerator: Any, task: Task, optimizer: Optimizer, callbacks: Iterable[Callback] = ()) -> None:
        super().__init__(task, accelerator.prepare_optimizer(optimizer), callbacks)
        self.accelerator = accelerator

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss, averaged; afterwards the loss is the mean of all."""
        self.accelerator.backward(loss)
        if self.accelerator.num_processes == 1:
            return
        gradients = [each.grad for each in self.task.model.parameters() if each.grad is not None]
        self._average([*gradients, loss.detach()])

    def agreed(self, asked: bool) -> bool:
        """Whether any process was asked to stop: all of them do, after the same step."""
        if self.accelerator.num_processes == 1:
            return asked
        mine = torch.tensor([float(asked)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(mine, reduction="sum") > 0)

    def _average(self, tensors: list[Tensor]) -> None:
        """One message for all of them."""
        mean = self.accelerator.reduce(torch.cat([each.flatten() for each in tensors]), reduction="mean")
        for each, part in zip(tensors, mean.split([each.numel() for each in tensors]), strict=True):
            each.copy_(part.view_as(each))


class LaunchedPrecision(Callback):
    """The autocast of an accelerator."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator

    def around_predict(self, learner: Learner) -> Any:
        """Its own context, which is none for float32."""
        return self.accelerator.autocast()


def were_launched() -> bool:
    """Whether a launcher started this process."""
    return any(name in os.environ for name in LAUNCHED)


@cache
def launched() -> Processes:
    """The processes of this run, as the launcher that started them says. UsageError where accelerate is missing."""
    if not were_launched():
        return Processes()
    try:
        from accelerate import Accelerator
    except ImportError as missing:
        raise UsageError("several processes need accelerate: pip install 'fromnoise[accelerate]'") from missing
    return Processes(Accelerator())
