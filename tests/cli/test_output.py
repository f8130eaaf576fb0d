"""Where pictures go, and that none is lost on the way."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from fromnoise.cli.output import Output
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import NameTakenError
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line

PICTURE = Image.new("RGB", (8, 8), "red")
DRAWN = Request(seed=7, steps=4, guidance=1.5, sampler="euler")


def names() -> list[str]:
    return sorted(each.name for each in Path().rglob("*.*"))


def test_a_name_that_is_taken_meanwhile(monkeypatch: pytest.MonkeyPatch):
    """Another process may take a name after it was seen to be free: then nothing is seen."""
    output, another = Output.parse("{seed}.png"), Output.parse("{seed}.png")
    monkeypatch.setattr(Path, "exists", lambda self: False)
    for each in (output, another, another):
        each.write(PICTURE, DRAWN)
    assert names() == ["7-2.png", "7-3.png", "7.png"]


def test_a_name_without_fields_stays_an_error(monkeypatch: pytest.MonkeyPatch):
    output = Output.parse("a.png")
    Path("a.png").write_bytes(b"mine")
    with pytest.raises(NameTakenError):
        output.write(PICTURE, DRAWN)
    assert Path("a.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("pattern", "name"), [("{steps:02}-{guidance}.png", "04-1.5.png"), ("{guidance:.2f}{sampler}.png", "1.50euler.png")]
)
def test_names_with_formats(pattern: str, name: str):
    Output.parse(pattern).write(PICTURE, DRAWN)
    assert names() == [name]


def test_what_a_format_cannot_hold_becomes_a_png(caplog: pytest.LogCaptureFixture):
    Output.parse("wide.webp").write(Image.new("RGB", (16_400, 1)), DRAWN)
    assert names() == ["wide.png"]
    assert "try .png, which it becomes" in caplog.text


def test_closed_standard_output(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="standard output is closed; give -o"):
        Output.parse("-")


def test_long_names(draw: Run):
    assert draw("a", "-o", "a" * 251 + ".png").code == 0
    assert is_one_line(draw("a", "-o", "a" * 252 + ".png"), 2, "File name too long; choose another name")


@pytest.mark.parametrize(
    "place", ["{slug}-{slug}-{slug}.png", "new/{slug}{slug}{slug}.png", "{slug}{slug}{slug}/a.png"]
)
@pytest.mark.parametrize("prompt", ["日" * 45, "𐐀" * 45, "a wolf"])
def test_prompts_are_shortened_where_a_name_would_be_too_long(place: str, prompt: str):
    output = Output.parse(place)
    for _ in range(2):
        output.write(PICTURE, DRAWN.with_(prompt=prompt))
    (first, second) = (each for each in Path().rglob("*.png"))
    longest = max(len(part.encode()) for part in first.parts)
    assert longest < 40 if prompt == "a wolf" else 240 < longest <= 255
    assert first.parent == second.parent


@pytest.mark.parametrize("place", ["{seed}" + "a" * 240 + ".png", "new/{slug}" + "a" * 243 + ".png", "{slug:300}.png"])
def test_names_that_may_grow_too_long_are_refused_beforehand(draw: Run, place: str):
    assert is_one_line(draw("a", "-o", place), 2, "File name too long; choose another name")
    assert names() == []


def test_closed_streams(draw: Run, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]):
    monkeypatch.setattr(sys, "stderr", None)
    assert draw("a", "--seed", 1, "-o", "a.png").code == 0
    monkeypatch.setattr(sys, "stdout", None)
    assert draw("a", "--seed", 1, "-o", "b.png").code == 0
    assert names() == ["a.png", "b.png"]
