"""Standard error: notes and progress where a person can see them, warnings and errors always."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from fromnoise.runtime.log import logger
from fromnoise.runtime.streams import is_terminal, printable

_STYLES = {logging.INFO: ("", "dim"), logging.WARNING: ("warning: ", "yellow"), logging.ERROR: ("error: ", "bold red")}

console = Console(stderr=True, highlight=False, soft_wrap=True)

Advance = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class _Speaker(logging.Handler):
    """Shows what `runtime.log` says, each message once; notes only where standard error is a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._said and (record.levelno >= logging.WARNING or is_terminal(sys.stderr)):
            self._said.add(message)
            say(message, record.levelno)


def say(message: str, level: int = logging.INFO) -> None:
    """One line on standard error."""
    prefix, style = _STYLES[level]
    console.print(Text(prefix + " ".join(printable(message).split("\n")), style=style))


@contextmanager
def speaking() -> Iterator[None]:
    """While this lasts, notes and warnings are shown."""
    speaker = _Speaker()
    before = logger.level
    logger.addHandler(speaker)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(speaker)
        logger.setLevel(before)


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar that vanishes when done, and is not there at all where standard error is no terminal."""
    with _bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def training_progress(what: str) -> Iterator[Callable[[int, int, float, float, float], None]]:
    """The same with loss, pictures per second and the time left as the trainer reckons it."""
    figures = "loss {task.fields[loss]:.4f}  {task.fields[speed]:.1f} pictures/s  {task.fields[left]} left"
    with _bar(TextColumn(figures)) as bar:
        task = bar.add_task(what, total=None, loss=float("nan"), speed=0.0, left="?")

        def show(done: int, total: int, loss: float, pictures_per_second: float, seconds_left: float) -> None:
            bar.update(
                task, completed=done, total=total, loss=loss, speed=pictures_per_second, left=_clock(seconds_left)
            )

        yield show


def _bar(*columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *(columns or (TimeRemainingColumn(),)),
        console=console,
        transient=True,
        redirect_stdout=is_terminal(sys.stdout),  # else paths printed meanwhile would land on standard error
        disable=not is_terminal(sys.stderr),
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
