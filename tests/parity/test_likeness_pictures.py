"""`--like a1111` and `--like comfyui` through the whole line, against k-diffusion from the tool's own start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import fromnoise as fn
from fromnoise.images.opening import to_png
from fromnoise.pipeline import last
from fromnoise.runtime.philox import philox_normal
from tests.parity.k_diffusion import sampling

SAID = {"seed": 7, "steps": 5, "guidance": 3.0, "sampler": "euler"}
SIZE = (16, 16)


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model)


def reference(pipe: fn.Pipeline, x: Tensor, levels: Tensor, whole_times: bool) -> Tensor:
    """k-diffusion's Euler on our U-Net; v-prediction and timesteps as its own wrapper for CompVis models has them."""
    table = pipe.scheduler.schedule.sigmas
    words = pipe.text.encode(["", "a kite"])

    def time_at(sigma: float) -> float:
        logs = table.log()
        low = int((logs <= torch.tensor(sigma).double().log() + 1e-12).sum()) - 1
        low = min(max(low, 0), len(table) - 2)
        share = float((torch.tensor(sigma).double().log() - logs[low]) / (logs[low + 1] - logs[low]))
        return float(round(low + share)) if whole_times else low + min(max(share, 0.0), 1.0)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = float(sigma[0])
        scaled = torch.cat([x, x]) / (level**2 + 1) ** 0.5
        v = pipe.unet(scaled, torch.full((2,), time_at(level)), words)
        pictures = torch.cat([x, x]) / (level**2 + 1) - v * level / (level**2 + 1) ** 0.5
        empty, said = pictures.chunk(2)
        return empty + 3.0 * (said - empty)

    with torch.no_grad():
        return sampling().sample_euler(denoise, x, levels.float(), disable=True)


def shape(pipe: fn.Pipeline) -> tuple[int, int, int]:
    return 4, SIZE[1] // pipe.multiple, SIZE[0] // pipe.multiple


def require_same(ours: Tensor, theirs: Tensor) -> None:
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 2e-4


def test_a1111_starts_from_the_cards_noise_and_steps_by_karras(pipe: fn.Pipeline) -> None:
    table = pipe.scheduler.schedule.sigmas
    levels = sampling().get_sigmas_karras(5, float(table[0]), float(table[-1]))
    x = philox_normal(7, 0, shape(pipe))[None] * levels[0]
    drawn = last(pipe.steps("a kite", **SAID, like="a1111", schedule="karras")).x
    require_same(drawn, reference(pipe, x, levels, whole_times=False))


def test_a1111s_own_schedule_is_normal(pipe: fn.Pipeline) -> None:
    assert pipe.resolve("a", like="a1111", sampler="euler").schedule == "normal"
    assert pipe.resolve("a", like="a1111", sampler="dpmpp-2m").schedule == "karras"
    assert pipe.resolve("a", like="comfyui", sampler="euler").schedule == "simple"
    assert [pipe.resolve("a", like=tool).weighting for tool in (None, "diffusers", "a1111", "comfyui")] == [
        "a1111",
        "none",
        "a1111",
        "comfyui",
    ]


def test_comfyui_draws_on_the_cpu_and_rounds_timesteps(pipe: fn.Pipeline) -> None:
    table = pipe.scheduler.schedule.sigmas
    levels = torch.cat([table[[999, 799, 599, 399, 199]], torch.zeros(1)])
    x = torch.randn(shape(pipe), generator=torch.Generator().manual_seed(7))[None] * float(1 + levels[0] ** 2) ** 0.5
    drawn = last(pipe.steps("a kite", **SAID, like="comfyui")).x
    require_same(drawn, reference(pipe, x, levels, whole_times=True))


@pytest.mark.parametrize(("like", "run"), [("diffusers", 2), ("a1111", 3), ("comfyui", 5)])
def test_image_to_image_rounds_as_the_tool_does(pipe: fn.Pipeline, like: str, run: int) -> None:
    start = to_png(pipe("x", seed=1, steps=2)[0].image)
    request = fn.Request(prompt="y", init=start, strength=0.5, like=like, **{**SAID, "steps": 5})
    assert pipe.run_steps(request) == len(list(pipe.steps(request))) == run


def test_a1111s_image_to_image_adds_its_first_noise_to_the_latents_mean(pipe: fn.Pipeline) -> None:
    image = pipe("x", seed=1, steps=2)[0].image
    request = fn.Request(prompt="y", init=to_png(image), strength=0.5, like="a1111", schedule="karras", **SAID)
    first = next(pipe.steps(request))
    with torch.no_grad():
        mean = pipe.autoencoder.encode(pipe._read(to_png(image)))
    expected = mean + first.sigma * philox_normal(7, 0, shape(pipe))[None]
    assert torch.allclose(first.noisy, expected, atol=1e-5)
