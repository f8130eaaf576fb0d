"""The list of samplers and schedules."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fromnoise.cli.samplers import samplers
from fromnoise.request import SAMPLERS, SCHEDULES


def test_the_list_is_plain_where_nobody_looks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    samplers()
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err == ""
    assert "\x1b" not in said.out
    assert len(lines) == 3 + len(SAMPLERS) + len(SCHEDULES)
    assert [line.split()[0] for line in lines if line.strip()] == ["sampler", *SAMPLERS, "schedule", *SCHEDULES]
    heun = next(line for line in lines if line.startswith("heun"))
    assert heun.split()[:4] == ["heun", "2", "2", "yes"]
    assert next(line for line in lines if line.startswith("dpm-adaptive")).split()[1:3] == ["3", "-"]


def test_json(capsys: pytest.CaptureFixture[str]):
    samplers(as_json=True)
    listing = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listing["samplers"]] == list(SAMPLERS)
    assert [each["label"] for each in listing["schedules"]] == list(SCHEDULES.values())
    lcm = next(each for each in listing["samplers"] if each["name"] == "lcm")
    assert (lcm["order"], lcm["calls"], lcm["deterministic"]) == (None, 1, False)
    assert all(each["use"] for each in listing["samplers"] + listing["schedules"])


def test_needs_no_torch():
    code = "import sys; from fromnoise.cli.samplers import samplers; samplers(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
