"""A request is checked when it is made, and its JSON loses nothing."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from fromnoise.request import MAX_SEED, AdapterHash, Begun, Control, Hires, Lora, Request
from fromnoise.runtime.checks import LONGEST_TEXT
from fromnoise.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("sampler", ["euler z", "", ["euler"], 3]),
        ("schedule", ["no"]),
        ("like", ["photoshop", ""]),
        ("steps", [0, 1001, 2.5, True, "9"]),
        ("count", [0, 10_001, 1.0, None]),
        ("guidance", [-0.1, 100.1, float("nan"), float("inf"), "7"]),
        ("strength", [-0.01, 1.01, float("nan"), True]),
        ("seed", [-1, MAX_SEED + 1, 1.5, "0"]),
        ("size", [(7, 128), (128, 8193), (128.0, 128)]),
        ("prompt", [None, 3, "a" * (LONGEST_TEXT + 1), "\udcff"]),
        ("negative", ["\ud800"]),
        ("weighting", ["midjourney"]),
        ("clip_skip", [0, 33, 1.5]),
        ("interval", [(0.2,), (0.5, 0.5), (0.6, 0.2), (-0.1, 0.5), (0.1, float("nan"))]),
        ("apg", [(0, 0), (2, 0, 0), (0, -1, 0), (0, 0, -1.5)]),
        ("threshold", [0.4, 1.1]),
        ("mask", [b"x"]),
        ("reuse", [(0, 1), (101, 1), (2,), (2, 0), (2, 11), (2.5, 1)]),
        ("merge", [-0.1, 0.8, "0.5"]),
        ("quality", ["worst", ""]),
    ],
)
def test_what_no_model_could_do(field: str, values: list[Any]):
    for value in values:
        with pytest.raises(UsageError, match=field) as caught:
            Request(**{field: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Hires, {"scale": 0.9}, "hires scale"),
        (Hires, {"scale": float("nan")}, "hires scale"),
        (Hires, {"upscaler": "Latent"}, "hires upscaler"),
        (Hires, {"strength": 1.1}, "hires strength"),
        (Hires, {"steps": 0}, "hires steps"),
        (Hires, {"tile": 7}, "hires tile"),
        (Begun, {"steps": 0}, "first steps"),
        (Begun, {"steps": 1, "prompt": None}, "the first prompt"),
        (Begun, {"steps": 1, "guidance": 101}, "the first guidance"),
        (AdapterHash, {"kind": "checkpoint", "name": "a", "hash": "0"}, "kind of adapter"),
    ],
)
def test_parts_that_no_model_could_do(kind: type, fields: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        kind(**fields)


def test_a_mask_has_no_second_pass():
    with pytest.raises(UsageError, match="upscale the picture"):
        Request(init=b"x", mask=b"x", hires=Hires())


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
    request = request.with_(mask=b"\0", interval=(0.1, 0.9), apg=(0.5, 15.0, -0.5), pag=3.0, threshold=0.99)
    request = request.with_(controls=(Control("c", b"\xff", 0.5, 0.0, 0.75), Control("d", b"")))
    request = request.with_(loras=(Lora("a.safetensors", 0.5, 0.25), Lora("b")), embeddings=("e.pt",))
    request = request.with_(reuse=(3, 2), merge=0.5, quality="draft")
    request = request.with_(mask=None, hires=Hires(1.5, "latent-bicubic", 0.3, 7, 64), begun=Begun(2, "c", "d", 1.0))
    request = request.with_(hashes=(AdapterHash("lora", "a", "0123456789ab"), AdapterHash("control", "c", "")))
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
        '{"size": [128.9, 128]}',
        '{"embeddings": "ab"}',
        "[" * 100_000,
    ],
)
def test_damaged_json(text: str):
    with pytest.raises(UsageError):
        Request.from_json(text)


@pytest.mark.parametrize("values", [{"weight": -1}, {"weight": 11}, {"start": 0.5, "end": 0.2}, {"model": 3}])
def test_a_control_that_no_model_could_do(values: dict[str, Any]):
    with pytest.raises(UsageError, match="control"):
        Control(**{"model": "m", "picture": b"", **values})


def test_unknown_fields_are_named():
    with pytest.raises(UsageError, match="colour"):
        Request.from_json(json.dumps({"prompt": "a", "colour": "red"}))


def test_needs_no_torch():
    code = "import sys, fromnoise.request; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_numpy_and_torch_numbers_are_numbers():
    request = Request(
        seed=np.int64(3), steps=torch.tensor(4), guidance=np.float64(1.5), size=[np.int32(16), 24], loras=[Lora("a")]
    )
    assert request == Request(seed=3, steps=4, guidance=1.5, size=(16, 24), loras=(Lora("a"),))
    assert Request.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": 128}, "size must be 2 numbers, not 128"),
        ({"size": (16,)}, r"size must be 2 numbers, not \(16,\)"),
        ({"size": (16, 16, 9)}, "size must be 2 numbers"),
        ({"interval": 0.5}, "interval must be 2 numbers"),
        ({"reuse": 2}, "reuse must be 2 numbers"),
        ({"loras": ["x.safetensors"]}, "loras must be a list of Loras"),
        ({"embeddings": "x.pt"}, "embeddings must be a list of paths"),
        ({"hires": 2}, "hires must be a Hires, not 2"),
        ({"init": "a.png"}, "init must be a picture's bytes"),
        ({"fast": "no"}, "fast must be true or false"),
        ({"dtype": ["x"]}, "dtype must be text"),
        ({"prompt": "a\0b"}, "NUL"),
    ],
)
def test_kinds(fields: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        Request(**fields)


def test_the_seed_that_counts_up():
    Request(seed=MAX_SEED, variation=0.5, variation_seed=0, count=2)
    with pytest.raises(UsageError, match=f"^variation_seed, which counts up .* 0 to {MAX_SEED - 1}, not"):
        Request(seed=0, variation=0.5, variation_seed=MAX_SEED, count=2)
