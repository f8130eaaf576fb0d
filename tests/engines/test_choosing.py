from __future__ import annotations

from dataclasses import replace

import pytest

from fromnoise.engines import choosing
from fromnoise.engines.choosing import PACES, Pace, State, Work, choose, considered
from fromnoise.engines.names import AUTO, COMPILE, EAGER, ENGINES, OPENVINO

SD15 = Work(calls=20, parameters=860_000_000, pixels=2 * 64 * 64)
THERE = {OPENVINO: State(None), COMPILE: State(None)}
KEPT = {OPENVINO: State(None, cached=True), COMPILE: State(None)}
GONE = {OPENVINO: State("not installed"), COMPILE: State("no compiler")}
MANY = replace(SD15, calls=100_000)


@pytest.fixture
def fast_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which OpenVINO takes half of eager's time."""
    monkeypatch.setattr(choosing, "PACES", {OPENVINO: Pace(time=0.5, first=12.0, again=1.0)})


@pytest.mark.usefixtures("fast_openvino")
@pytest.mark.parametrize(
    ("asked", "work", "states", "engine"),
    [
        (EAGER, SD15, KEPT, EAGER),
        (OPENVINO, SD15, THERE, OPENVINO),
        (COMPILE, replace(SD15, calls=1), THERE, COMPILE),
        (AUTO, MANY, GONE, EAGER),
        (AUTO, replace(SD15, calls=1), THERE, EAGER),
        (AUTO, MANY, THERE, OPENVINO),
        (AUTO, replace(MANY, device="cuda"), KEPT, EAGER),
        (AUTO, replace(MANY, needs=("adapters",)), KEPT, EAGER),
        (OPENVINO, replace(SD15, needs=("adapters",)), KEPT, EAGER),
    ],
)
def test_choice(asked: str, work: Work, states: dict[str, State], engine: str) -> None:
    assert choose(asked, work, states).engine == engine


def test_an_engine_that_is_no_faster_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "PACES", {OPENVINO: Pace(time=1.0, first=0.0, again=0.0)})
    assert choose(AUTO, MANY, KEPT).engine == EAGER
    assert not considered(AUTO, MANY)


@pytest.mark.usefixtures("fast_openvino")
def test_a_model_on_the_disk_pays_sooner_than_compiling() -> None:
    pays = [calls for calls in range(1, 5000, 10) if choose(AUTO, replace(SD15, calls=calls), KEPT).engine != EAGER]
    compiled = [
        calls for calls in range(1, 5000, 10) if choose(AUTO, replace(SD15, calls=calls), THERE).engine != EAGER
    ]
    assert pays[0] < compiled[0]


@pytest.mark.usefixtures("fast_openvino")
def test_small_work_is_not_even_considered() -> None:
    assert considered(AUTO, SD15) and not considered(AUTO, Work(20, 25_000_000, 2 * 16 * 16))
    assert not considered(OPENVINO, SD15) and not considered(AUTO, replace(SD15, needs=("captures",)))


def test_every_engine_that_auto_may_take_has_a_name() -> None:
    assert set(PACES) < set(ENGINES)
