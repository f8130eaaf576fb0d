"""What ends a run within a step, and that what is kept then leads where an uninterrupted run leads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
import torch

from fromnoise.runtime.interrupts import deferred
from fromnoise.training.callbacks import Averages, LearningRate
from fromnoise.training.learner import Callback, Learner, Stop
from fromnoise.training.run import fit
from tests.training.test_learner import Line


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


class After(Callback):
    """Does something once, after a step, and then counts the steps that it was told of."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step, self.action = step, action

    def after_step(self, learner: Learner) -> None:
        if learner.step_index == self.step:
            self.action()


class Told(Callback):
    """Remembers the steps that it was told of, across resumes."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def after_step(self, learner: Learner) -> None:
        self.steps.append(learner.step_index)

    def state(self) -> dict[str, list[int]]:
        return {"steps": self.steps}

    def load(self, state: dict[str, list[int]]) -> None:
        self.steps = list(state["steps"])


def run(folder: Path, *between: Callback, task: Line | None = None, resume: bool = True) -> tuple[Line, list[int]]:
    task, told = task or Line(), Told()
    folder.mkdir(exist_ok=True)
    rate, averages = LearningRate(1e-2, 5), Averages(task.model, ())
    fit(folder, task, rate, averages, steps=12, batch=8, resume=resume, minutes=1e9, extra=[*between, told])
    return task, told.steps


def same(one: Line, other: Line) -> bool:
    return all(map(torch.equal, one.model.parameters(), other.model.parameters()))


def saved(folder: Path) -> int:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["step"]


@pytest.mark.parametrize("step", [1, 7, 12])
def test_ctrl_c_among_callbacks_waits_for_the_others(tmp_path: Path, step: int) -> None:
    whole, all_steps = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", After(step, interrupt))
    assert saved(tmp_path / "parts") == step
    parts, steps = run(tmp_path / "parts")
    assert same(whole, parts) and steps == all_steps


class InTheStep(Line):
    """Ctrl-C comes when the loss of a step is known, before the weights move."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        super().__init__()
        self.step, self.action = step, action

    def batch(self, step: int) -> torch.Tensor:
        self.now = step
        return super().batch(step)

    def loss(self, prediction: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        if self.now == self.step:
            self.action()
        return super().loss(prediction, batch)


def test_ctrl_c_in_a_step_counts_it_once(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", task=InTheStep(4, interrupt))
    assert saved(tmp_path / "parts") == 5
    assert same(whole, run(tmp_path / "parts")[0])


def test_a_second_ctrl_c_stops_at_once_and_keeps_no_half_step(tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, task=InTheStep(4, twice))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_what_fails_among_callbacks_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, After(3, interrupt))
    with pytest.raises(OSError, match="full"):
        run(tmp_path, After(8, fail))
    assert saved(tmp_path) == 3


def test_a_stop_finishes_the_run(tmp_path: Path) -> None:
    def stop() -> None:
        raise Stop("enough")

    with pytest.raises(Stop):
        run(tmp_path, After(8, stop))
    assert saved(tmp_path) == 8


def test_python_s_handler_is_back_afterwards(tmp_path: Path) -> None:
    run(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_other_handlers_are_left_alone() -> None:
    heard: list[bool] = []

    def elsewhere() -> None:
        with deferred() as asked:
            heard.append(asked())

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred() as asked:
        interrupt()
        heard.append(asked())
    assert heard == [False, False]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
