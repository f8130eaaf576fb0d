"""A request is checked when it is made, and its JSON loses nothing."""

import json
import subprocess
import sys
from typing import Any

import pytest

from fromnoise.request import MAX_PROMPT, MAX_SEED, Request
from fromnoise.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("sampler", ["euler z", "", None, ["euler"], 3]),
        ("schedule", ["no", None]),
        ("like", ["photoshop"]),
        ("steps", [0, 1001, 2.5, True, "9", None]),
        ("count", [0, 10_001, 1.0]),
        ("guidance", [-0.1, 100.1, float("nan"), float("inf"), "7", None]),
        ("strength", [-0.01, 1.01, float("nan"), True]),
        ("seed", [-1, MAX_SEED + 1, 1.5, "0"]),
        ("size", [(7, 128), (128, 8193), (128.0, 128)]),
        ("prompt", [None, 3, "a" * (MAX_PROMPT + 1), "\udcff"]),
        ("negative", ["\ud800"]),
    ],
)
def test_what_no_model_could_do(field: str, values: list[Any]):
    for value in values:
        with pytest.raises(UsageError, match=field) as caught:
            Request(**{field: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"seed": 0}, {"seed": MAX_SEED}, {"strength": 0}, {"strength": 1}, {"guidance": 0}, {"size": (8, 8192)}],
)
def test_the_edges_are_fine(fields: dict[str, Any]):
    request = Request(**fields)
    assert all(getattr(request, name) == value for name, value in fields.items())


def test_every_picture_of_a_batch_needs_a_seed():
    Request(seed=MAX_SEED - 3, count=4)
    with pytest.raises(UsageError, match="seed"):
        Request(seed=MAX_SEED - 2, count=4)


def test_with_checks_too():
    assert Request(seed=3).with_(seed=0).seed == 0
    with pytest.raises(UsageError):
        Request().with_(steps=0)


def test_json_holds_everything():
    request = Request("a 🐺\n", "b", 0, 3, 1.5, "heun", "karras", (64, 96), 2, b"\x89PNG\0", 0.25, model="m")
    assert Request.from_json(request.to_json()) == request
    assert "🐺" in request.to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "null",
        "[1]",
        '"a"',
        '{"size": "ab"}',
        '{"size": [1]}',
        '{"init": 7}',
        '{"seed": "x"}',
        '{"prompt": {}}',
    ],
)
def test_damaged_json(text: str):
    with pytest.raises(UsageError):
        Request.from_json(text)


def test_unknown_fields_are_named():
    with pytest.raises(UsageError, match="colour"):
        Request.from_json(json.dumps({"prompt": "a", "colour": "red"}))


def test_needs_no_torch():
    code = "import sys, fromnoise.request; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
