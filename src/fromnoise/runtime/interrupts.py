"""Ctrl-C that waits for what must not be torn apart."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from fromnoise.runtime.log import note


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """While this lasts, a first Ctrl-C only makes what is yielded say True; a second one interrupts at once.

    In other threads than the main one, and where someone else handles the signal, nothing is changed.
    """
    asked = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True
        note("stopping after this step; Ctrl-C once more stops at once and goes back to the last checkpoint")

    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
