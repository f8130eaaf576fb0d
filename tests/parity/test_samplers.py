"""Our samplers against k-diffusion's over whole trajectories, with the same noise."""

from __future__ import annotations

import importlib.util
import sys
import types
from importlib.metadata import distribution
from typing import Any

import pytest
import torch
from torch import Tensor

from fromnoise.diffusion import samplers
from fromnoise.diffusion.schedules import karras
from fromnoise.runtime.seeds import PictureNoise


@pytest.fixture(scope="module")
def k_diffusion() -> Any:
    """k-diffusion's sampling module alone: the package asks for much that sampling does not use."""
    root = distribution("k-diffusion").locate_file("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(root)]  # type: ignore[attr-defined]
    sys.modules.setdefault("k_diffusion", package)
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]  # type: ignore[attr-defined]
    sys.modules.setdefault("k_diffusion.utils", utils)
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", f"{root}/sampling.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def denoise(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    """The exact denoiser of two unequal Gaussians, which bends the path."""
    centres = torch.tensor([1.5, -0.5], dtype=x.dtype)
    spread = 0.25 + sigma[:, None, None, None] ** 2
    pull = torch.stack([-((x - centre) ** 2) / (2 * spread) for centre in centres]).softmax(0)
    means = [(0.25 * x + (spread - 0.25) * centre) / spread for centre in centres]
    return pull[0] * means[0] + pull[1] * means[1]


PAIRS = {
    "euler": "sample_euler",
    "heun": "sample_heun",
    "ddim": "sample_euler",
    "dpmpp-2m": "sample_dpmpp_2m",
    "euler-a": "sample_euler_ancestral",
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_same_trajectory(k_diffusion: Any, name: str, steps: int) -> None:
    sigmas = karras(0.03, 14.6, steps) if steps > 1 else torch.tensor([14.6, 0.0]).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64) * 14.6
    ours_noise, their_noise = PictureNoise([7, 8], (4, 3, 3)), PictureNoise([7, 8], (4, 3, 3))
    seen: list[Tensor] = []
    extra = {"noise_sampler": lambda *levels: their_noise(*levels).double()} if name == "euler-a" else {}
    theirs = getattr(k_diffusion, PAIRS[name])(
        denoise, x, sigmas, callback=lambda info: seen.append(info["denoised"]), disable=True, **extra
    )
    ours = list(samplers.SAMPLERS[name](denoise, x, sigmas, noise=ours_noise))
    assert set(samplers.SAMPLERS) == set(PAIRS)
    assert len(ours) == len(seen) == steps
    for step, predicted in zip(ours, seen, strict=True):
        torch.testing.assert_close(step.denoised, predicted, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours[-1].x, theirs, rtol=1e-6, atol=1e-7)
