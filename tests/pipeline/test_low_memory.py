"""Parts that take turns in memory, and decoding in tiles where memory is short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fromnoise as fn
from fromnoise.pipeline import drawing
from fromnoise.pipeline.turns import Turns
from fromnoise.runtime import memory
from fromnoise.runtime.errors import UsageError

SAID = {"seed": 3, "steps": 3, "sampler": "euler"}


def parts(pipe: fn.Pipeline) -> dict[str, torch.nn.Module]:
    return {"text": pipe.prompts.encoders[0].clip_text, "unet": pipe.unet, "vae": pipe.autoencoder}


def awake(pipe: fn.Pipeline) -> set[str]:
    return {name for name, each in parts(pipe).items() if not any(weight.is_meta for weight in each.parameters())}


def pixels(pipe: fn.Pipeline, **more: object) -> np.ndarray:
    return np.asarray(pipe("a kite", **SAID, **more)[0].image)


def test_parts_take_turns_and_pictures_stay_the_same(tiny_model: Path) -> None:
    pipe = fn.load(tiny_model, low_memory=True)
    assert not awake(pipe)
    seen = []
    for step in pipe.steps("a kite", **SAID):
        seen.append(awake(pipe))
        pipe.decode(step.x)
        seen.append(awake(pipe))
    assert seen == [{"unet"}, {"vae"}] * 3
    for _ in range(2):
        assert np.array_equal(pixels(pipe), pixels(fn.load(tiny_model)))


def test_prompts_are_encoded_whoever_asks(tiny_model: Path) -> None:
    pipe, usual = fn.load(tiny_model, low_memory=True), fn.load(tiny_model)
    assert torch.equal(pipe.prompts.encode(["a kite"]).words, usual.prompts.encode(["a kite"]).words)
    pipe.take_autoencoder()
    assert awake(pipe) == {"vae"}
    assert torch.equal(pipe.prompts.from_ids([[5, 6]]).words, usual.prompts.from_ids([[5, 6]]).words)


def test_a_picture_to_start_from_too(tiny_model: Path) -> None:
    init = fn.load(tiny_model)("a kite", **SAID)[0]._repr_png_()
    drawn = [pixels(fn.load(tiny_model, low_memory=low), init=init, strength=0.7) for low in (False, True)]
    assert np.array_equal(*drawn)


def test_pinned_parts_stay() -> None:
    one, two, three = (torch.nn.Linear(2, 2, device="meta") for _ in range(3))
    turns, filled = Turns(), []

    def fill(module: torch.nn.Module) -> None:
        filled.append(module)
        module.to_empty(device="cpu")

    turns.add(one, fill)
    turns.add(two, fill)
    turns.take(one)
    turns.take(one)
    turns.take(two, three)
    assert filled == [one, two] and one.weight.is_meta and not two.weight.is_meta
    turns.pin()
    turns.take(one)
    assert filled == [one, two, one] and not one.weight.is_meta and not two.weight.is_meta


def test_other_engines_and_low_memory_exclude_each_other(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="eager"):
        fn.load(tiny_model, low_memory=True, engine="openvino")


def test_short_memory_decodes_in_tiles_and_says_so(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pipe, tiled = fn.load(tiny_model), []
    monkeypatch.setattr(drawing, "TILE", 8)
    monkeypatch.setattr(drawing, "decode_tiled", lambda vae, latents: tiled.append(1) or vae.decode(latents))
    latents = torch.randn(1, 4, 16, 16)
    pipe.pixels(latents)
    assert not tiled and "tiles" not in caplog.text
    monkeypatch.setattr(drawing, "free_bytes", lambda: 1000.0)
    pipe.pixels(latents)
    assert tiled and "decoding in tiles" in caplog.text


def test_free_memory_heeds_the_control_group(tmp_path: Path) -> None:
    assert memory._group_left(tmp_path) == float("inf")
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._group_left(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._group_left(tmp_path) == 700.0
    assert 0 < memory.free_bytes() < float("inf")
