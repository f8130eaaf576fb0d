"""Counted calls are those that drawing makes, and a forecast is their sum."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fromnoise as fn
from fromnoise.adapters import Lora as Factors
from fromnoise.adapters import write_lora
from fromnoise.models.extras import Extras
from fromnoise.nn.attention import SpatialTransformer
from fromnoise.pipeline import planning
from fromnoise.request import Lora
from fromnoise.runtime.machine import Machine, Speed

KINDS = ("convolution", "transformer", "narrow transformer", "attention")
NOTHING = dict.fromkeys((*KINDS, "step"), 0.0)
JOINS = Speed("joining", 1, 640, 1e30)
SPEEDS = tuple(Speed(kind, 64, 64, 1e9) for kind in KINDS)
MACHINE = Machine("test", (*SPEEDS, Speed("getting ready", 1, 1, 1e30), JOINS), NOTHING, NOTHING)


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model, engine="eager")


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FROMNOISE_CACHE", str(tmp_path))
    monkeypatch.setattr(planning, "machine", lambda form: MACHINE)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"interval": (0.25, 0.75)},
        {"reuse": (2, 1)},
        {"reuse": (3, 1), "interval": (0.0, 0.5), "count": 2},
        {"guidance": 1.0},
        {"pag": 2.0},
        {"sampler": "dpmpp-2s-a"},
        {"quality": "balanced"},
    ],
)
def test_the_calls_are_those_that_drawing_makes(pipe: fn.Pipeline, fields: dict[str, object]):
    request = pipe.resolve("a kite", seed=1, **{"steps": 8, **fields})
    made: Counter[tuple[int, bool]] = Counter()

    def look(module: object, given: tuple[object, ...]) -> None:
        x, _, _, extras = given
        assert isinstance(extras, Extras)
        reuse = extras.reuse
        shallow = reuse is not None and reuse.calls % reuse.every != 0 and len(reuse.kept) == len(x)
        made[len(x), shallow] += 1

    hook = pipe.unet.register_forward_pre_hook(look)
    pipe(request)
    hook.remove()
    counted = planning.network_calls(pipe, request, pipe.sigmas(request))
    expected = {(rows, outer is not None): calls for (rows, outer), calls in counted.items()}
    if request.sampler == "dpmpp-2s-a":  # whose last step calls once
        expected[2, False] -= 1
    assert expected == dict(made)


def test_a_forecast_sums_its_parts(pipe: fn.Pipeline):
    found = planning.forecast(pipe, pipe.resolve("a kite", seed=1, steps=5, count=3))
    named = {part.name: part for part in found.parts}
    assert (named["U-Net"].calls, named["autoencoder"].calls, named["text encoder"].calls) == (5, 1, 1)
    assert found.seconds == pytest.approx(planning.BETWEEN * found.flops / 1e9)
    twice = planning.forecast(pipe, pipe.resolve("a kite", seed=1, steps=10, count=3))
    assert twice.seconds - found.seconds == pytest.approx(5 * named["U-Net"].seconds)
    assert found.peak > found.resident > 1e8


def on(monkeypatch: pytest.MonkeyPatch, **slow: Any) -> None:
    monkeypatch.setattr(planning, "machine", lambda form: replace(MACHINE, **slow))


def test_every_block_takes_time_to_start(pipe: fn.Pipeline, monkeypatch: pytest.MonkeyPatch):
    on(monkeypatch, starts={**NOTHING, "transformer": 1.0, "narrow transformer": 1.0})
    attending = sum(isinstance(each, SpatialTransformer) for each in pipe.unet.modules())
    found = planning.forecast(pipe, pipe.resolve("a kite", seed=1, steps=4))
    unet = next(each for each in found.parts if each.name == "U-Net")
    assert unet.seconds == pytest.approx(planning.BETWEEN * (attending + unet.work.flops / 1e9))


def test_a_step_takes_time_beside_its_network(pipe: fn.Pipeline, monkeypatch: pytest.MonkeyPatch):
    request = pipe.resolve("a kite", seed=1, steps=5, count=3)
    known = planning.forecast(pipe, request).seconds
    on(monkeypatch, starts={**NOTHING, "step": 1.0})
    assert planning.forecast(pipe, request).seconds == pytest.approx(known + 5)


def test_all_weights_are_made_ready_and_kernels_for_every_shape(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    pipe = fn.load(tiny_model, engine="eager")
    request = pipe.resolve("a kite", seed=1, steps=4)
    on(monkeypatch, speeds=(*SPEEDS, Speed("getting ready", 1, 1, 1e6), JOINS))
    whole, reused = (planning.forecast(pipe, each).ready for each in (request, request.with_(reuse=(2, 1))))
    assert whole == reused > 0.05  # though the last call reuses what deep layers said
    on(monkeypatch, anew={**NOTHING, "convolution": 1.0})
    both, alone = (planning.forecast(pipe, each) for each in (request.with_(interval=(0.0, 0.5)), request))
    unet = next(each for each in alone.parts if each.name == "U-Net")
    blocks = sum(each.blocks for each in set(unet.work.pieces) if each.kind == "convolution")
    assert both.ready - alone.ready == pytest.approx(planning.FIRST * blocks)


def test_adding_an_adapter_to_weights_takes_time_and_memory_once(
    pipe: fn.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    height, width = pipe.unet.get_submodule(name).weight.shape
    factors = Factors(torch.ones(height, 2), torch.ones(2, width))
    write_lora(tmp_path / "cat.safetensors", {"unet": {name: factors}})
    request = pipe.resolve("a kite", seed=1, steps=2, loras=(Lora(str(tmp_path / "cat.safetensors")),))
    pipe(request.with_(loras=(), hashes=()))
    on(monkeypatch, speeds=(*SPEEDS, Speed("joining", 1, 640, 1.0)))
    first = planning.forecast(pipe, request)
    assert first.ready == pytest.approx(height * width)
    pipe(request)
    assert planning.forecast(pipe, request).ready == 0


def test_words_are_read_once(pipe: fn.Pipeline):
    request = pipe.resolve("a kite", seed=1, steps=2, count=3, exact=True)
    other = pipe.resolve("a {red|green|blue|black|white} kite", seed=1, steps=2, count=3, exact=True)
    once, again = ({part.name: part.calls for part in planning.forecast(pipe, each).parts} for each in (request, other))
    assert once["text encoder"] == 1 and once["autoencoder"] == 3
    assert again["text encoder"] == len({each.prompt for each in pipe.parts(other)}) > 1


def test_what_a_run_took_corrects_the_next(pipe: fn.Pipeline):
    request = pipe.resolve("a kite", seed=1, steps=5)
    found = planning.forecast(pipe, request)
    planning.learn(pipe, request, found, 2 * found.seconds)
    second = planning.forecast(pipe, request)
    assert second.seconds == pytest.approx(2 * found.seconds)
    planning.learn(pipe, request, second, second.seconds)  # and doesn't drift when it was right
    assert planning.forecast(pipe, request).seconds == pytest.approx(second.seconds)
    other = pipe.resolve("a kite", seed=1, steps=5, size=(32, 32))
    assert planning.forecast(pipe, other).learned == 1.0


def test_image_to_image_and_second_passes_are_counted(pipe: fn.Pipeline):
    drawn = pipe("a kite", seed=1, steps=1)[0]
    from fromnoise.images.opening import to_png
    from fromnoise.request import Hires

    def operations(**fields: object) -> float:
        return planning.forecast(pipe, pipe.resolve("a kite", seed=1, steps=10, **fields)).flops

    assert operations(init=to_png(drawn.image), strength=0.5) < 0.8 * operations()
    assert operations(hires=Hires(2.0, strength=0.5)) > 3 * operations()


def test_speeds_between_measured_ones():
    machine = Machine("m", (Speed("a", 64, 64, 1e9), Speed("a", 256, 64, 4e9), Speed("b", 64, 64, 5.0)))
    assert machine.rate("a", 64, 64) == pytest.approx(1e9, rel=0.01)
    assert machine.rate("a", 128, 64) == pytest.approx(2e9, rel=0.01)
    assert machine.rate("b", 10_000, 8) == pytest.approx(5.0)
