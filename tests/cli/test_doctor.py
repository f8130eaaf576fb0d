from __future__ import annotations

import json

from tests.cli.conftest import Run


def test_it_says_how_the_guidance_is_with_figures_and_advice(run: Run) -> None:
    said = run("doctor", "a kite", "--steps", "6", "--seed", "0", "--count", "2", "--guidance", "30")
    assert said.code == 0
    lines = said.stdout.decode().splitlines()
    assert lines[0].startswith("guidance: ")
    assert any("agreement" in line for line in lines)


def test_json_has_every_step(run: Run) -> None:
    said = run("doctor", "a kite", "--steps", "6", "--seed", "0", "--json")
    found = json.loads(said.stdout)
    assert found["verdict"] in ("too weak", "fine", "too strong")
    sigmas = [each["sigma"] for each in found["steps"]]
    assert sigmas == sorted(sigmas, reverse=True)
    assert len(found["steps"]) == 6
