"""Which single words are commands mistyped."""

from __future__ import annotations

import pytest

from fromnoise.cli.words import mistyped

COMMANDS = ("plan", "inpaint", "steps", "pull", "push", "chain", "train", "finish")


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("inpiant", "inpaint"),
        ("plna", "plan"),
        ("step", "steps"),
        ("Pulls", "pull"),
        ("trian", "train"),
        ("push", "push"),
    ],
)
def test_a_slip_of_the_keys(word: str, command: str):
    assert mistyped(word, COMMANDS) == command


@pytest.mark.parametrize("word", ["bull", "fish", "plane", "plant", "rain", "Chair", "wolf", "a red apple"])
def test_a_thing_to_draw(word: str):
    assert mistyped(word, COMMANDS) is None
