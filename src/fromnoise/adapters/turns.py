"""Taking turns with a module: those who want it in the same state share it, others wait in the order they came."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from threading import Condition, get_ident
from weakref import WeakKeyDictionary

from torch import nn

Change = Callable[[], None]


class Turns:
    """A lock around one module, which may be held by several threads as long as they want the same state."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: deque[object] = deque()
        self._inside: Counter[int] = Counter()
        self._state: object = None

    def enter(self, state: object, turn_on: Change) -> None:
        """Wait for a turn. The first one inside calls `turn_on`. A thread may enter again with the state it has.

        Raises RuntimeError when this thread is inside with another state, which would wait for itself.
        """
        with self._changed:
            if self._inside[get_ident()]:
                if state is not self._state:
                    raise RuntimeError("a drawing with other adapters is under way in this thread")
            else:
                self._wait_for(state)
                if not self._inside.total():
                    turn_on()
                    self._state = state
            self._inside[get_ident()] += 1

    def leave(self, turn_off: Change) -> None:
        """The last one inside calls `turn_off`."""
        with self._changed:
            self._inside[get_ident()] -= 1
            self._inside += Counter()  # drops the threads at zero
            if not self._inside:
                self._state = None
                turn_off()
            self._changed.notify_all()

    def _wait_for(self, state: object) -> None:
        ticket = object()
        self._waiting.append(ticket)
        try:
            self._changed.wait_for(
                lambda: self._waiting[0] is ticket and (not self._inside.total() or state is self._state)
            )
        finally:
            self._waiting.remove(ticket)
            self._changed.notify_all()


_turns: WeakKeyDictionary[nn.Module, Turns] = WeakKeyDictionary()
_making = Condition()


def turns_of(module: nn.Module) -> Turns:
    """The turns that are taken with a module; everyone who asks gets the same."""
    with _making:
        return _turns.setdefault(module, Turns())
