from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fromnoise as fn
from fromnoise.engines import running
from fromnoise.engines.cache import Store
from fromnoise.engines.contract import Engine, Prepared, difference
from fromnoise.engines.identity import fingerprint
from fromnoise.engines.names import COMPILE, EAGER, OPENVINO
from fromnoise.engines.plain import PlainDecoder, PlainUNet
from fromnoise.engines.running import Engines, Runner, engine
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.extras import Control, Extras
from fromnoise.models.unet import UNet
from fromnoise.runtime.errors import FromnoiseError, UsageError
from tests.tiny import AUTOENCODER, UNET, randomise

LIMIT = {torch.float32: 1e-5, torch.bfloat16: 0.05}
"""Relative to the largest magnitude."""


def unet(dtype: torch.dtype = torch.float32) -> UNet:
    return randomise(UNet(UNET)).to(dtype).eval().requires_grad_(False)  # type: ignore[return-value]


def autoencoder(dtype: torch.dtype = torch.float32) -> Autoencoder:
    return randomise(Autoencoder(AUTOENCODER), 1).to(dtype).eval().requires_grad_(False)  # type: ignore[return-value]


def inputs(seed: int = 0, side: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return draw(2, 4, side, side), torch.tensor([3.0, 500.0]), draw(2, 7, 32)


def usable(name: str) -> Engine:
    if reason := engine(name).available():
        pytest.skip(reason)
    return engine(name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    yield Store(tmp_path)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_openvino_gives_what_eager_gives_and_is_kept(
    store: Store, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    made, module = usable(OPENVINO), PlainUNet(unet(dtype))
    given = inputs(side=24)  # larger than what it is traced with
    assert not made.cached(module, given, store)
    first = made.prepare(module, given, store)
    second = made.prepare(module, given, store)
    assert made.cached(module, given, store) and not first.cached and second.cached
    assert first.difference == second.difference < LIMIT[dtype]
    other = inputs(seed=1, side=24)
    assert difference(second(*other), module(*other)) < LIMIT[dtype]
    blob = next(store.folder.glob("*/model.blob"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with caplog.at_level(logging.WARNING, "fromnoise"):
        assert not made.prepare(module, given, store).cached
    assert "damaged" in caplog.text


def test_openvino_decodes(store: Store) -> None:
    made, module = usable(OPENVINO), PlainDecoder(autoencoder())
    latents = torch.randn(1, 4, 20, 24, generator=torch.Generator().manual_seed(0))
    assert difference(made.prepare(module, (latents,), store)(latents), module(latents)) < 1e-5


@pytest.mark.slow
def test_compiled_gives_what_eager_gives_and_is_kept(store: Store) -> None:
    made, module = usable(COMPILE), PlainUNet(unet())
    first, second = (made.prepare(module, inputs(), store) for _ in range(2))
    assert not first.cached and second.cached and second.difference < 1e-5
    other = inputs(seed=1)
    assert difference(second(*other), module(*other)) < 1e-5


class Doubling:
    """An engine that is easy to tell from the module."""

    name = COMPILE

    def available(self) -> str | None:
        return None

    def cached(self, module: torch.nn.Module, inputs: object, store: Store) -> bool:
        return True

    def prepare(self, module: torch.nn.Module, inputs: object, store: Store) -> Prepared:
        return Prepared(self.name, lambda *given: 2 * module(*given), difference=1.0)


class Failing(Doubling):
    def prepare(self, module: torch.nn.Module, inputs: object, store: Store) -> Prepared:
        raise FromnoiseError("out of luck")


def engines(monkeypatch: pytest.MonkeyPatch, kind: type[Doubling], asked: str = COMPILE) -> Engines:
    monkeypatch.setattr("fromnoise.engines.compiled.Compiled", kind)
    return Engines(unet(), autoencoder(), asked)


def test_the_engine_asked_for_runs_both_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    run = engines(monkeypatch, Doubling)
    x, time, words = inputs()
    assert torch.equal(run.for_run(3)(x, time, words, Extras()), 2 * run.unet(x, time, words))
    assert run.used == COMPILE
    assert torch.equal(run.decode(x), 2 * run.autoencoder.decode(x))


def test_what_needs_the_eager_module_gets_it_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = engines(monkeypatch, Doubling)
    x, time, words = inputs()
    perturbed = Extras(perturbed=torch.tensor([True, False]))
    with caplog.at_level(logging.WARNING, "fromnoise"):
        for _ in range(2):
            assert torch.equal(run.predict(x, time, words, perturbed), run.unet(x, time, words, perturbed))
        assert run.used == EAGER and caplog.text.count("perturbed attention need the eager engine") == 1
        assert torch.equal(run.for_run(1, ["adapters"])(x, time, words, Extras()), run.unet(x, time, words))
    assert "adapters need the eager engine" in caplog.text


def test_controls_and_captures_get_the_eager_module(monkeypatch: pytest.MonkeyPatch) -> None:
    run = engines(monkeypatch, Doubling)
    x, time, words = inputs()
    seen: list[Tensor] = []
    hook = run.unet.mid_block.register_forward_hook(lambda module, given, output: seen.append(output))
    run.predict(x, time, words, Extras())
    hook.remove()
    assert run.used == EAGER and len(seen) == 1
    down = tuple(torch.zeros_like(each) for each in run.unet.descend(run.unet.conv_in(x), torch.zeros(2, 128), words))
    control = Extras(control=Control(down, torch.zeros_like(seen[0])))
    assert torch.equal(run.predict(x, time, words, control), run.unet(x, time, words))


def test_a_failing_engine_is_an_error_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FromnoiseError, match="out of luck"):
        engines(monkeypatch, Failing).predict(*inputs(), Extras())


def test_a_failing_engine_makes_way_when_auto_chose_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fromnoise.engines.compiled.Compiled", Failing)
    module = PlainUNet(unet())
    with caplog.at_level(logging.WARNING, "fromnoise"):
        made = Runner().prepared(COMPILE, module, inputs())
    assert made.engine == EAGER and torch.equal(made(*inputs()), module(*inputs())) and "out of luck" in caplog.text


def test_unknown_and_missing_engines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no engine 'warp'"):
        Runner("warp")
    monkeypatch.setattr("fromnoise.engines.by_openvino._version", lambda: None)
    with pytest.raises(UsageError, match="pip install"):
        Runner(OPENVINO)


def test_a_changed_weight_changes_the_fingerprint() -> None:
    module = PlainUNet(unet())
    before = fingerprint(module)
    assert fingerprint(PlainUNet(unet())) == before
    with torch.no_grad():
        module.unet.conv_in.weight[0, 0, 0, 0] += 1
    assert fingerprint(module) != before


def test_a_picture_says_how_it_was_computed(tiny_model: Path) -> None:
    pipe = fn.load(tiny_model, engine=EAGER)
    drawn = pipe("a", steps=1, seed=0)[0].request
    assert (drawn.engine, drawn.dtype) == (EAGER, "float32")
    assert pipe(drawn)[0].request == drawn


@pytest.mark.parametrize(
    ("dtype", "engine", "fit", "calls"),
    [("float32", "auto", 2, 2), ("float32", "eager", 8, 1), ("float32", "auto", 0, 3), ("bfloat16", "auto", 8, 3)],
)
def test_small_pictures_are_decoded_together_in_float32(
    dtype: str, engine: str, fit: int, calls: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = fn.load(tiny_model, dtype=dtype, engine=engine)
    height, width = pipe.size
    monkeypatch.setattr(running, "DECODED", fit * height * width + 1)
    torch.manual_seed(0)
    latents = torch.randn(3, 4, height // pipe.multiple, width // pipe.multiple)
    alone = [np.asarray(pipe.decode(each)[0]).astype(int) for each in latents.split(1)]
    decoded: list[int] = []
    plain = pipe.autoencoder.decode
    monkeypatch.setattr(pipe.autoencoder, "decode", lambda it: decoded.append(len(it)) or plain(it))
    together = [np.asarray(each).astype(int) for each in pipe.decode(latents)]
    assert len(decoded) == calls and sum(decoded) == 3
    assert max(abs(one - other).max() for one, other in zip(together, alone, strict=True)) <= 1


def test_another_engine_decodes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engines(monkeypatch, Doubling).decodes(64) == 1 < engines(monkeypatch, Doubling, EAGER).decodes(64)
