"""Blending latents in a denoiser, against the tools' own arithmetic written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fromnoise.diffusion.blending import Blended, Seen, at_unit_variance, noisy
from fromnoise.diffusion.samplers import SAMPLERS

SHAPE = (2, 4, 6, 6)
CLEAN, NOISE, X = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
DRAWN = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))


class Halving:
    """A denoiser with a memory, which answers with something of all that it is shown."""

    def __init__(self) -> None:
        self.state: tuple[Tensor, ...] = ()

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.both(x, sigma)[0]

    def both(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        self.state = (x,)
        return 0.5 * x.flip(-1) + 0.1, 0.25 * x


def blended(seen: Seen | None, first: float = 10.0, drawn: Tensor = DRAWN) -> Blended:
    return Blended(Halving(), CLEAN, NOISE, drawn, seen, first)


def test_comfyuis_x0_inpaint() -> None:
    """comfy/samplers.py: noisy latents in, the clean ones in the answer, by a soft mask both times."""
    sigma = 3.0
    shown = X * DRAWN + (CLEAN + sigma * NOISE) * (1 - DRAWN)
    expected = Halving()(shown, torch.tensor([sigma])) * DRAWN + CLEAN * (1 - DRAWN)
    assert torch.allclose(blended(noisy)(X, torch.full((2,), sigma)), expected, atol=1e-6)


def test_the_web_uis_ways() -> None:
    """modules/sd_samplers_cfg_denoiser.py: after the network, or on timesteps before it without noise."""
    sigma = torch.full((2,), 3.0)
    expected = Halving()(X, sigma) * DRAWN + CLEAN * (1 - DRAWN)
    assert torch.allclose(blended(None)(X, sigma), expected, atol=1e-6)
    scale = (1 + 3.0**2) ** 0.5
    shown = (X / scale * DRAWN + CLEAN * (1 - DRAWN)) * scale
    expected = Halving()(shown, sigma) * DRAWN + CLEAN * (1 - DRAWN)
    assert torch.allclose(blended(at_unit_variance)(X, sigma), expected, atol=1e-5)


def test_at_the_first_level_the_start_is_left_as_it_is() -> None:
    guided = blended(noisy, first=3.0)
    guided(X, torch.tensor([3.0, 2.0]))
    (shown,) = guided.state
    assert torch.equal(shown[0], X[0])
    assert not torch.equal(shown[1], X[1])


@pytest.mark.parametrize("name", ["euler", "euler-a", "dpmpp-2m", "heun", "lms"])
def test_a_sampler_ends_at_what_is_kept(name: str) -> None:
    sigmas = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    drawn = (DRAWN > 0.5).float()
    noise = type("Fixed", (), {"state": None, "__call__": lambda self, *levels: NOISE})()
    guided = blended(noisy, first=8.0, drawn=drawn)
    x = [step.x for step in SAMPLERS[name](guided, 8.0 * X, sigmas, noise=noise)][-1]
    kept = drawn.expand(SHAPE) == 0
    assert torch.allclose(x[kept], CLEAN[kept], atol=1e-4)
    assert (x[~kept] - CLEAN[~kept]).abs().mean() > 0.1
