"""`plan`, the line before long drawings, and the flags that do less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fromnoise.cli import plan
from fromnoise.images.metadata import read_settings
from fromnoise.images.opening import open_image
from fromnoise.pipeline import planning
from fromnoise.request import Request
from fromnoise.runtime.machine import Machine, Speed
from tests.cli.conftest import Run

KINDS = ("convolution", "transformer", "narrow transformer", "attention")
JOINS = Speed("joining", 1, 640, 1e30)
SPEEDS = (*(Speed(kind, 64, 64, 1e9) for kind in KINDS), Speed("getting ready", 1, 1, 1e30), JOINS)
MACHINE = Machine("test", SPEEDS, dict.fromkeys((*KINDS, "step"), 0.0), dict.fromkeys(KINDS, 0.0))


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FROMNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(planning, "machine", lambda form: MACHINE)


def drawn(path: Path) -> Request:
    settings = read_settings(open_image(path.read_bytes()))
    assert settings is not None and settings.request is not None
    return settings.request


def test_plan_says_seconds_and_memory_and_draws_nothing(draw: Run):
    result = draw("plan", "a kite", "--steps", 5)
    assert result.code == 0
    lines = result.stdout.decode().splitlines()
    assert lines[0].startswith("1 picture of 16x16, 5 steps, dpmpp-2m")
    assert any("U-Net: 5 ×" in line for line in lines)
    assert lines[-1].startswith("about ") and lines[-1].endswith("GB of memory")
    assert not Path("outputs").exists()


def test_plan_for_programs(draw: Run):
    one, two = (json.loads(draw("plan", "--json", "--steps", steps).stdout) for steps in (5, 10))
    assert two["seconds"] > one["seconds"] > 0
    assert two["parts"][1]["calls"] == 10
    assert one["peak_bytes"] > 1e8


def test_plan_refuses_what_drawing_refuses(draw: Run):
    assert draw("plan", "--size", "17x16").code == 2


def test_long_drawings_begin_with_a_line_and_short_ones_do_not(draw: Run, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr(plan, "note", said.append)
    draw("a kite", "--seed", 1)
    assert said == []
    monkeypatch.setattr(plan, "LONG", 0.0)
    monkeypatch.setattr(plan, "TELLING", 0.0)
    for command in (
        ("a kite", "--seed", 1),
        ("steps", "a kite", "--seed", 1),
        ("grid", "a kite", "--over", "seed=1-3"),
    ):
        said.clear()
        assert draw(*command).code == 0
        assert len(said) == 1 and said[0].startswith("about ")


def test_a_real_run_corrects_the_next_plan(draw: Run, monkeypatch: pytest.MonkeyPatch):
    before = json.loads(draw("plan", "--json").stdout)["seconds"]
    monkeypatch.setattr(plan, "LONG", 0.0)
    monkeypatch.setattr(plan, "TELLING", 0.0)
    draw("a kite", "--seed", 1)
    assert json.loads(draw("plan", "--json").stdout)["seconds"] != before


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        (("--reuse", "3"), {"reuse": (3, 1)}),
        (("--reuse", "3,2", "--merge", "0.5"), {"reuse": (3, 2), "merge": 0.5}),
        (("--quality", "draft", "--merge", "0.25"), {"merge": 0.25}),
        (("--quality", "best"), {"reuse": None, "merge": None, "interval": None}),
    ],
)
def test_flags_that_do_less_reach_the_request(draw: Run, flags: tuple[str, ...], fields: dict[str, object]):
    result = draw("a kite", "--seed", 1, *flags)
    assert result.code == 0, result.stderr
    request = drawn(result.paths[0])
    assert {name: getattr(request, name) for name in fields} == fields
    assert request.quality is None


@pytest.mark.parametrize("flags", [("--reuse", "x"), ("--reuse", "0"), ("--merge", "0.9"), ("--quality", "worst")])
def test_what_can_not_be(draw: Run, flags: tuple[str, str]):
    result = draw("a kite", *flags)
    assert result.code == 2
    assert result.stderr.count("\n") == 1
    assert flags[0].removeprefix("--") in result.stderr


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.123, "0.12 s"), (4.24, "4.2 s"), (42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.9, "60 s")],
)
def test_durations(seconds: float, said: str):
    assert plan.duration(seconds) == said
