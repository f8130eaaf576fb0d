"""Taking turns with a module."""

from __future__ import annotations

import threading
import time

import pytest
from torch import nn

from fromnoise.adapters.turns import Turns, turns_of


def test_one_state_is_shared_and_switched_on_and_off_once() -> None:
    turns, said = Turns(), []
    inside = threading.Barrier(2, timeout=10)

    def visit() -> None:
        turns.enter("a", lambda: said.append("on"))
        inside.wait()  # both are inside at once, or this times out
        turns.leave(lambda: said.append("off"))

    threads = [threading.Thread(target=visit) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=10)
    assert said == ["on", "off"]


def test_another_state_waits_and_those_who_come_later_wait_behind_it() -> None:
    turns, order = Turns(), []
    turns.enter("a", nothing)

    def visit(state: str) -> None:
        turns.enter(state, nothing)
        order.append(state)
        turns.leave(nothing)

    threads = []
    for state in ("b", "a", "b"):
        threads.append(threading.Thread(target=visit, args=(state,)))
        threads[-1].start()
        wait_until(lambda: len(turns._waiting) == len(threads))
    assert order == []
    turns.leave(nothing)
    for each in threads:
        each.join(timeout=10)
    assert order == ["b", "a", "b"]


def test_a_thread_may_enter_again_but_not_with_another_state() -> None:
    turns = Turns()
    turns.enter("a", nothing)
    waiting = threading.Thread(target=lambda: (turns.enter("b", nothing), turns.leave(nothing)))
    waiting.start()
    wait_until(lambda: len(turns._waiting) == 1)
    turns.enter("a", nothing)  # although another one waits
    with pytest.raises(RuntimeError, match="other adapters"):
        turns.enter("b", nothing)
    turns.leave(nothing)
    turns.leave(nothing)
    waiting.join(timeout=10)
    assert not waiting.is_alive()


def test_a_failing_start_leaves_the_turn_free() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError):
        turns.enter("a", lambda: 1 // 0)
    turns.enter("b", nothing)
    turns.leave(nothing)


def test_everyone_gets_the_same_turns_of_a_module() -> None:
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    assert turns_of(one) is turns_of(one)
    assert turns_of(one) is not turns_of(other)


def nothing() -> None:
    pass


def wait_until(true: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)
