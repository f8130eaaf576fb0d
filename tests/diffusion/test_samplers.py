from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fromnoise.diffusion.samplers import SAMPLERS, Step, ancestral_split
from fromnoise.diffusion.schedules import karras
from fromnoise.runtime.seeds import PictureNoise

SHAPE = (2, 4, 4)


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of unit normal data."""
    return x / (1 + sigma[:, None, None, None] ** 2)


def run(name: str, start: Step | None = None, seeds: tuple[int, ...] = (3, 4)) -> list[Step]:
    noise = PictureNoise(list(seeds), SHAPE)
    x = noise() * 10
    return list(SAMPLERS[name](denoise, x, karras(0.03, 10.0, 8), noise=noise, start=start))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_saved_step_continues_bit_exactly_in_another_process(name: str, tmp_path: Path) -> None:
    whole = run(name)
    whole[3].save(tmp_path / "step.safetensors")
    code = f"""
from pathlib import Path
from fromnoise.diffusion.samplers import Step
from tests.diffusion.test_samplers import run
folder = Path({str(tmp_path)!r})
run({name!r}, Step.read(folder / "step.safetensors"))[-1].save(folder / "end.safetensors")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    end = Step.read(tmp_path / "end.safetensors")
    assert end.index == whole[-1].index
    assert torch.equal(end.x, whole[-1].x)
    assert not torch.equal(whole[3].x, whole[-1].x)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    together, alone = run(name, seeds=(3, 4)), run(name, seeds=(4,))
    assert torch.equal(together[-1].x[1], alone[-1].x[0])


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp-2m", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    """Halving the steps' width divides the error by 2^order; the exact path is known for unit normal data."""
    x = torch.ones(1, *SHAPE, dtype=torch.float64) * 5

    def error(steps: int) -> float:
        sigmas = torch.linspace(10.0, 1.0, steps + 1, dtype=torch.float64)
        end = list(SAMPLERS[name](denoise, x, sigmas))[-1].x
        exact = x * ((1 + 1.0**2) / (1 + 10.0**2)) ** 0.5
        return float((end - exact).abs().max())

    measured = torch.log2(torch.tensor(error(64) / error(128)))
    assert measured == pytest.approx(order, abs=0.35)


def test_ancestral_noise_and_step_add_up() -> None:
    down, up = ancestral_split(torch.tensor(3.0), torch.tensor(2.0), 1.0)
    assert float(down**2 + up**2) == pytest.approx(4.0)
    assert ancestral_split(torch.tensor(3.0), torch.tensor(2.0), 0.0)[1] == 0
