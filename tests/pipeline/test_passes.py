"""The second pass at a larger size, and pictures upscaled by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import fromnoise as fn
from fromnoise.images.convert import to_tensor
from fromnoise.images.opening import to_png
from fromnoise.models.extras import NO_EXTRAS, Control, Extras
from fromnoise.pipeline import last
from fromnoise.pipeline.network import Following, Network
from fromnoise.pipeline.passes import enlarged, larger
from fromnoise.request import SAMPLERS, UPSCALERS, Hires, Request
from fromnoise.runtime.likeness import a1111_exact_steps

SAID = {"seed": 3, "steps": 6, "sampler": "euler-a"}


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model)


def pixels(picture: fn.Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def picture(width: int, height: int) -> bytes:
    return to_png(Image.radial_gradient("L").resize((width, height)).convert("RGB"))


@pytest.mark.parametrize("upscaler", UPSCALERS)
def test_the_second_pass_is_larger_and_replays(pipe: fn.Pipeline, upscaler: str) -> None:
    drawn = pipe("a kite", hires=Hires(1.5, upscaler, 0.5), **SAID)[0]
    assert drawn.image.size == (24, 24)
    assert drawn.request.size == (16, 16)
    assert drawn.request.hires == Hires(1.5, upscaler, 0.5, 3)
    again = pipe(Request.from_json(drawn.request.to_json()))[0]
    assert again.request == drawn.request
    assert np.array_equal(pixels(again), pixels(drawn))


def test_steps_count_on_and_can_be_gone_on_with_in_either_pass(pipe: fn.Pipeline, tmp_path: Path) -> None:
    request = Request("a kite", hires=Hires(2.0, "latent", 0.5, 3), **SAID)
    steps = list(pipe.steps(request))
    assert [each.index for each in steps] == list(range(1, 10))
    assert pipe.run_steps(request) == 9
    assert [each.x.shape[-1] for each in steps] == [8] * 6 + [16] * 3
    for at in (2, 6, 7, 8):
        steps[at - 1].save(tmp_path / "step.safetensors")
        resumed = list(pipe.steps(request, start=fn.Step.read(tmp_path / "step.safetensors")))
        assert [each.index for each in resumed] == list(range(at + 1, 10))
        assert torch.equal(resumed[-1].x, steps[-1].x)


def test_the_second_pass_is_image_to_image_from_the_enlarged_latents(pipe: fn.Pipeline) -> None:
    """The web UI's: fresh noise of the same seed at the larger size, and the last steps of a longer schedule."""
    request = pipe.resolve("a kite", hires=Hires(2.0, "latent-nearest", 0.6, 4), like="a1111", **SAID)
    small = last(pipe.steps(request.with_(hires=None)))
    steps = list(pipe.steps(request))[6:]
    noise = pipe_noise(pipe, request.with_(size=(32, 32), hires=None))
    total, run = a1111_exact_steps(4, 0.6)
    assert (total, run) == (6, 4)
    sigmas = pipe.sigmas(request.with_(hires=None, steps=6))[-5:]
    expected = F.interpolate(small.x, (16, 16)) + float(sigmas[0]) * noise
    assert torch.equal(steps[0].noisy, expected)
    assert [each.sigma for each in steps] == sigmas[:-1].tolist()


def pipe_noise(pipe: fn.Pipeline, request: Request) -> Tensor:
    from fromnoise.pipeline.starting import source

    return source(request, (4, 16, 16))()


def test_how_many_steps_the_second_pass_runs(pipe: fn.Pipeline) -> None:
    steps = pipe.scheduler.second_steps
    asked = Request("", steps=10, sampler="euler", hires=Hires(2, strength=0.45))
    assert steps(asked) == 4
    assert steps(asked.with_(like="a1111")) == 10
    assert steps(asked.with_(hires=Hires(2, strength=0.45, steps=7))) == 7
    assert steps(asked.with_(hires=Hires(2, strength=0.01))) == 1
    for strength in (0.001, 0.01, 0.3, 0.999, 1.0):
        levels = pipe.scheduler.second_sigmas(asked.with_(hires=Hires(2, strength=strength, steps=50)))
        assert 1 <= len(levels) - 1 <= 50
    assert len(pipe.scheduler.second_sigmas(asked.with_(hires=Hires(2, strength=0.3, steps=12)))) == 13


def test_strength_zero_is_the_enlarged_picture_through_the_autoencoder(pipe: fn.Pipeline) -> None:
    init = picture(20, 12)
    request = Request("a", init=init, hires=Hires(2.0, "lanczos", 0.0), seed=1, steps=4)
    (drawn,) = pipe(request)
    large = Image.radial_gradient("L").resize((20, 12)).convert("RGB").resize((40, 24), Image.Resampling.LANCZOS)
    expected = pipe.decode(pipe.encode(to_tensor(large)))[0]
    assert np.array_equal(pixels(drawn), np.asarray(expected))


def test_upscaling_is_image_to_image_from_the_enlarged_picture(pipe: fn.Pipeline) -> None:
    """At strength 0.6 the web UI runs 4 of 6 steps, and 4 steps asked for exactly are those same ones."""
    small = Image.radial_gradient("L").resize((16, 24)).convert("RGB")
    large = to_png(small.resize((32, 48), Image.Resampling.LANCZOS))
    request = Request("a kite", like="a1111", **SAID)
    upscaled = pipe(request.with_(init=to_png(small), hires=Hires(2.0, "lanczos", 0.6, 4)))[0]
    drawn = pipe(request.with_(init=large, strength=0.6))[0]
    assert np.array_equal(pixels(upscaled), pixels(drawn))


@pytest.mark.parametrize(("size", "large"), [((20, 12), (40, 24)), ((21, 13), (42, 26)), ((16, 17), (32, 34))])
def test_pictures_of_any_size_are_upscaled(pipe: fn.Pipeline, size: tuple[int, int], large: tuple[int, int]) -> None:
    request = Request("a", init=picture(*size), hires=Hires(2.0, "lanczos", 0.4, tile=16), count=2, **SAID)
    drawn = pipe(request)
    assert [each.image.size for each in drawn] == [large, large]
    assert not np.array_equal(pixels(drawn[0]), pixels(drawn[1]))
    assert len(list(pipe.steps(request))) == pipe.run_steps(request) == 2
    assert np.array_equal(pixels(pipe(drawn[0].request)[0]), pixels(pipe(drawn[0].request)[0]))


def test_a_size_that_latents_cannot_be_enlarged_from(pipe: fn.Pipeline) -> None:
    with pytest.raises(fn.UsageError, match="multiples of 2"):
        pipe("a", init=picture(21, 13), hires=Hires(2.0, "latent"))


def test_the_size_of_the_second_pass() -> None:
    assert larger((16, 24), Hires(1.5), 2) == (24, 36)
    assert larger((16, 24), Hires(1.3), 8) == (16, 24)
    assert larger((768, 512), Hires(1000 / 768), 8) == (1000, 664)


def test_prompt_edits_are_over_in_the_second_pass(pipe: fn.Pipeline) -> None:
    one = pipe("[a cat:a dog:0.5]", hires=Hires(1.5, "latent", 0.5), **SAID)[0]
    start = list(pipe.steps("[a cat:a dog:0.5]", **SAID))[-1]
    request = pipe.resolve("[a cat:a dog:0.5]", hires=Hires(1.5, "latent", 0.5), **SAID)
    with_dog = last(pipe.steps(request.with_(prompt="a dog"), start=replace(start, index=6)))
    assert np.array_equal(np.asarray(pipe.decode(with_dog.x)[0]), np.asarray(one.image))


def test_no_tile_leaves_a_mark() -> None:
    """A network that looks at nothing but the place itself answers in tiles as it does to the whole."""

    def squares(x: Tensor, time: Tensor, words: Tensor, extras: Extras) -> Tensor:
        assert max(x.shape[-2:]) <= 8
        assert extras.reuse is None
        return x**2

    x = torch.randn(2, 4, 19, 11, generator=torch.Generator().manual_seed(0))
    network = Network(squares, None, "epsilon", torch.ones(3), None, 2, tile=8)  # type: ignore[arg-type]
    answer = network.predict(x, torch.ones(2), torch.ones(2, 1, 1), NO_EXTRAS, 0)
    torch.testing.assert_close(answer, x**2, rtol=0, atol=1e-6)


def test_each_tile_follows_its_part_of_the_picture() -> None:
    """What a ControlNet adds, and what an inpainting network is shown, is cut to the tile."""

    def residual(x: Tensor, time: Tensor, words: Tensor, hint: Tensor, extras: Extras) -> Control:
        return Control((), F.avg_pool2d(hint, 8).sum(1, keepdim=True))

    residual.config = SimpleNamespace(conditioning_embedding_out_channels=(1, 2, 4, 8))  # type: ignore[attr-defined]

    def shown(x: Tensor, time: Tensor, words: Tensor, extras: Extras) -> Tensor:
        assert extras.control is not None
        return x[:, :4] + x[:, 4:] + extras.control.mid

    x, known, hint = torch.randn(1, 4, 19, 11), torch.randn(1, 4, 19, 11), torch.rand(1, 3, 152, 88)
    following = Following(residual, hint, 2.0, 0.0, 1.0)  # type: ignore[arg-type]
    parts = {"known": known, "following": [following], "tile": 8}
    network = Network(shown, None, "epsilon", torch.ones(3), None, 1, **parts)  # type: ignore[arg-type]
    answer = network.predict(x, torch.ones(1), torch.ones(1, 1, 1), NO_EXTRAS, 0)
    expected = x + known + 2 * F.avg_pool2d(hint, 8).sum(1, keepdim=True)
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)


def test_tiles_as_large_as_the_picture_change_nothing(pipe: fn.Pipeline) -> None:
    request = Request("a", init=picture(12, 16), hires=Hires(2.0, strength=0.5), **SAID)
    whole = pipe(request)[0]
    tiled = pipe(request.with_(hires=Hires(2.0, strength=0.5, tile=32)))[0]
    small = pipe(request.with_(hires=Hires(2.0, strength=0.5, tile=16)))[0]
    assert np.array_equal(pixels(whole), pixels(tiled))
    assert not np.array_equal(pixels(whole), pixels(small))


def test_an_enlarged_batch_is_that_of_its_pictures(pipe: fn.Pipeline) -> None:
    request = pipe.resolve("a", count=2, hires=Hires(2.0, "lanczos"), **SAID)
    step = last(pipe.steps(request.with_(hires=None)))
    both = enlarged(pipe, request, step)
    alone = enlarged(pipe, request.with_(count=1), replace(step, x=step.x[1:]))
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("sampler", ["dpm-adaptive", "dpm-fast"])
def test_samplers_that_count_their_own_steps_go_on_in_either_pass(
    pipe: fn.Pipeline, tmp_path: Path, sampler: str, scale: float
) -> None:
    """Neither their counts nor, at scale 1, their sizes tell the passes apart."""
    request = Request("a kite", hires=Hires(scale, "latent", 0.5, 3), **{**SAID, "sampler": sampler})
    steps = list(pipe.steps(request))
    for at in range(1, len(steps)):
        steps[at - 1].save(tmp_path / "step.safetensors")
        resumed = list(pipe.steps(request, start=fn.Step.read(tmp_path / "step.safetensors")))
        assert len(resumed) == len(steps) - at
        assert torch.equal(resumed[-1].x, steps[-1].x)


@pytest.mark.parametrize(
    ("sampler", "other"),
    [
        ("euler", "unipc"),
        ("euler", "dpm-adaptive"),
        ("lms", "dpm-adaptive"),
        ("unipc", "dpmpp-2m"),
        ("lms", "dpmpp-3m-sde"),
        ("dpm-adaptive", "lms"),
        ("dpmpp-2m", "euler"),
    ],
)
def test_a_step_of_another_sampler(pipe: fn.Pipeline, sampler: str, other: str) -> None:
    request = Request("a kite", **{**SAID, "sampler": sampler})
    step = list(pipe.steps(request))[3]
    with pytest.raises(fn.UsageError, match=f"isn't {other}'s"):
        list(pipe.steps(request.with_(sampler=other), start=step))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_samplers_steps_are_its_own(pipe: fn.Pipeline, sampler: str) -> None:
    request = Request("a kite", **{**SAID, "sampler": sampler})
    steps = list(pipe.steps(request))
    for done, step in enumerate(steps, 1):
        assert len(list(pipe.steps(request, start=step))) == len(steps) - done


@pytest.mark.parametrize("like", [None, "a1111"])
@pytest.mark.parametrize(
    "changes",
    [
        {"index": -1},
        {"noise_state": torch.zeros(1, 3, dtype=torch.uint8)},
        {"noise_state": torch.zeros(2, 5056, dtype=torch.uint8)},
        {"noise_state": torch.zeros(1, 5056, dtype=torch.uint8)},
    ],
)
def test_a_step_with_odd_fields(pipe: fn.Pipeline, changes: dict[str, Any], like: str | None) -> None:
    request = Request("a kite", like=like, **SAID)
    step = replace(list(pipe.steps(request))[3], **changes)
    with pytest.raises(fn.UsageError, match="the step to go on from"):
        list(pipe.steps(request, start=step))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": (24, 16)}, "give the request that it was made by"),
        ({"count": 2}, "give the request that it was made by"),
        ({"steps": 3}, "number 5, and the request has 3"),
    ],
)
def test_a_step_of_another_request(pipe: fn.Pipeline, changes: dict[str, Any], said: str) -> None:
    request = Request("a kite", **SAID)
    step = list(pipe.steps(request))[4]
    with pytest.raises(fn.UsageError, match=said):
        list(pipe.steps(request.with_(**changes), start=step))


def test_a_step_that_reuses_deep_layers_goes_on_from_a_file(pipe: fn.Pipeline, tmp_path: Path) -> None:
    """They lie in memory channels last in a network that is large enough to be laid out, which a file can't do."""
    request, file = Request("a kite", reuse=(3, 1), **SAID), str(tmp_path / "step.safetensors")
    steps = list(pipe.steps(request))
    calls, deep = steps[1].reused
    laid_out = replace(steps[1], reused=(calls, deep.contiguous(memory_format=torch.channels_last)))
    for step in (steps[0], steps[1], laid_out, steps[3]):
        step.save(file)
        read = fn.Step.read(file)
        assert read.reused[1].stride() == step.reused[1].stride()
        assert torch.equal(list(pipe.steps(request, start=read))[-1].x, steps[-1].x)


def test_files_that_hold_no_step(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing")
    save_file({"x": torch.zeros(1)}, tmp_path / "b")
    save_file({"place": torch.tensor([torch.inf, 1.0])}, tmp_path / "c")
    for name in ("a", "b", "c", "none"):
        with pytest.raises(fn.UsageError, match="holds no step"):
            fn.Step.read(tmp_path / name)


def test_comfyuis_schedule_is_no_longer_than_the_training_one(pipe: fn.Pipeline) -> None:
    request = Request("a", like="comfyui", steps=20, strength=0.01, seed=1, init=picture(16, 16))
    assert pipe.run_steps(request) == 10
    assert len(list(pipe.steps(request))) == 10


def test_saved_at_home(pipe: fn.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pipe("a", **SAID)[0].save("~/a.png")
    assert (tmp_path / "a.png").is_file()
