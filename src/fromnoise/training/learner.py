"""The one training loop: predict, loss, backward, step, zero_grad. Everything else is a callback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.interrupts import deferred
from fromnoise.training.optimizers import Optimizer


class Task(Protocol):
    """What is trained: the model, its batches and its loss. `batch(step)` is a pure function of the step."""

    @property
    def model(self) -> nn.Module: ...

    def batch(self, step: int) -> Any: ...

    def predict(self, batch: Any) -> Any: ...

    def loss(self, prediction: Any, batch: Any) -> Tensor: ...


class Stop(Exception):  # noqa: N818
    """Raised by a callback after a step to end the run early and well; says why."""


class Callback:
    """Something that watches or bends training. What it must remember goes through `state`."""

    def start(self, learner: Learner) -> None:
        """Before the first step, after a checkpoint was read."""

    def before_step(self, learner: Learner) -> None:
        """Before each step."""

    def around_predict(self, learner: Learner) -> Any:
        """A context manager that prediction and loss run in, or None."""
        return None

    def after_step(self, learner: Learner) -> None:
        """After each step, when `learner.step_index` counts it already."""

    def finish(self, learner: Learner) -> None:
        """After the last step, or when the person stops the run."""

    def state(self) -> dict[str, Any]:
        """Tensors and numbers that a checkpoint must keep."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""


class Learner:
    """Trains `task` with `optimizer`. A run resumed from `state` equals an uninterrupted one bit for bit."""

    def __init__(self, task: Task, optimizer: Optimizer, callbacks: Iterable[Callback] = ()) -> None:
        self.task, self.optimizer, self.callbacks = task, optimizer, list(callbacks)
        self.step_index = 0
        self.last_loss = float("nan")
        self._whole = True

    def predict(self, batch: Any) -> Any:
        """What the model says to a batch."""
        return self.task.predict(batch)

    def loss(self, prediction: Any, batch: Any) -> Tensor:
        """How wrong it is, a scalar."""
        return self.task.loss(prediction, batch)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss."""
        loss.backward()

    def step(self) -> None:
        """Move the weights."""
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def one_step(self) -> None:
        """One batch through all five verbs."""
        batch = self.task.batch(self.step_index)
        with self.around_predict():
            loss = self.loss(self.predict(batch), batch)
        self.backward(loss)
        self.step()
        self.zero_grad()
        self.last_loss = float(loss.detach())

    @contextmanager
    def around_predict(self) -> Iterator[None]:
        """What predictions are made in: every callback's context, mixed precision for one."""
        with ExitStack() as stack:
            for context in filter(None, (each.around_predict(self) for each in self.callbacks)):
                stack.enter_context(context)
            yield

    def fit(self, steps: int) -> None:
        """Train until `steps` steps have been made in all, the ones before a resume counted in.

        Ctrl-C ends the run at the end of its step, when all callbacks have been told of it, and as a Stop does: they
        finish first. Whatever else ends it within a step, a loss that is not a number (FromnoiseError) or a second
        Ctrl-C, finishes nothing: a checkpoint of half a step would not lead where a whole run leads.
        """
        self.task.model.train()
        self._tell("start")
        try:
            with deferred() as asked:
                self._run(steps, asked)
        except BaseException as why:
            if self._whole or isinstance(why, Stop):
                self._tell("finish")
            raise
        self._tell("finish")

    def _run(self, steps: int, asked: Callable[[], bool]) -> None:
        while self.step_index < steps:
            self._whole = False
            self._tell("before_step")
            self.one_step()
            self._check()
            self.step_index += 1
            self._tell("after_step")
            self._whole = True
            if self.agreed(asked()):
                raise KeyboardInterrupt

    def agreed(self, asked: bool) -> bool:
        """Whether to stop after this step, where this process was asked to."""
        return asked

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "step": self.step_index,
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "callbacks": {type(each).__name__: each.state() for each in self.callbacks},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.step_index = state["step"]
        self.task.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for each in self.callbacks:
            each.load(state["callbacks"].get(type(each).__name__, {}))

    def _tell(self, event: str) -> None:
        for each in self.callbacks:
            getattr(each, event)(self)

    def _check(self) -> None:
        if not torch.isfinite(torch.tensor(self.last_loss)):
            raise FromnoiseError(f"the loss is {self.last_loss} at step {self.step_index}; try again with a lower rate")
