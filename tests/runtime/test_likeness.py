"""What other tools do, held to numbers from their sources and to independent implementations."""

import math
from typing import Any

import pytest
import torch

from fromnoise.request import SAMPLERS, SCHEDULES, WEIGHTINGS
from fromnoise.runtime.likeness import (
    LIKENESSES,
    Steps,
    a1111_exact_steps,
    ddim_times,
    ddim_uniform,
    log_time,
    nearest_time,
    without_last_level,
)
from tests.parity.k_diffusion import sampling

A1111, COMFYUI, DIFFUSERS = (LIKENESSES[name] for name in ("a1111", "comfyui", "diffusers"))


@pytest.fixture(scope="module")
def table() -> list[float]:
    """Stable Diffusion 1's and 2's levels, betas linear in their roots from 0.00085 to 0.012, in float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    return ((1 - kept) / kept).sqrt().tolist()


@pytest.mark.parametrize(
    ("steps", "strength", "wanted"),
    [
        (20, 0.75, Steps(20, 16)),  # int(0.75 * 20) + 1
        (20, 1.0, Steps(20, 20)),  # int(0.999 * 20) + 1
        (20, 0.0, Steps(20, 1)),
        (25, 0.6, Steps(25, 16)),
        (50, 0.58, Steps(50, 29)),  # 0.58 * 50 is 28.999999999999996
        (1, 0.5, Steps(1, 1)),
    ],
)
def test_the_web_ui_rounds_up(steps: int, strength: float, wanted: Steps):
    assert A1111.steps(steps, strength) == wanted


@pytest.mark.parametrize(
    ("steps", "strength", "wanted"),
    [(20, 0.75, Steps(26, 20)), (20, 1.0, Steps(20, 20)), (20, 0.05, Steps(400, 20)), (20, 0.0, Steps(0, 0))],
)
def test_the_web_ui_runs_exactly(steps: int, strength: float, wanted: Steps):
    assert a1111_exact_steps(steps, strength) == wanted


@pytest.mark.parametrize(
    ("steps", "strength", "wanted"),
    [
        (20, 0.75, Steps(26, 20)),
        (20, 0.87, Steps(22, 20)),
        (14, 0.5, Steps(28, 14)),
        (20, 1.0, Steps(20, 20)),
        (20, 0.99995, Steps(20, 20)),
        (20, 0.0, Steps(0, 0)),
    ],
)
def test_comfyui_runs_all_that_was_asked(steps: int, strength: float, wanted: Steps):
    assert COMFYUI.steps(steps, strength) == wanted


def test_diffusers_rounds_down():
    """`25 * 0.6` is 15.0, `50 * 0.58` is 28.999999999999996: tests/parity holds it to the pipeline's own."""
    assert DIFFUSERS.steps(25, 0.6) == Steps(25, 15)
    assert DIFFUSERS.steps(50, 0.58) == Steps(50, 28)
    assert DIFFUSERS.steps(4, 0.01) == Steps(4, 0)


def test_the_first_level_is_the_known_one(table: list[float]):
    """14.6146 and 0.0292: the ends that k-diffusion and ComfyUI show for Stable Diffusion 1."""
    assert table[-1] == pytest.approx(14.6146, abs=1e-4)
    assert table[0] == pytest.approx(0.0292, abs=1e-4)


@pytest.fixture(scope="module")
def theirs(table: list[float]) -> Any:
    """k-diffusion's own table of levels."""
    sampling()
    external = pytest.importorskip("k_diffusion.external")
    return external.DiscreteSchedule(torch.tensor(table, dtype=torch.float64), quantize=False)


LEVELS = [0.01, 0.0292, 0.03, 0.5, 1.0, 7.77, 14.6, 20.0]


@pytest.mark.parametrize("sigma", LEVELS)
def test_timesteps_as_k_diffusion_finds_them(table: list[float], theirs: Any, sigma: float):
    level = torch.tensor([sigma], dtype=torch.float64)
    assert log_time(table, sigma) == pytest.approx(float(theirs.sigma_to_t(level)), abs=1e-9)
    assert nearest_time(table, sigma) == float(theirs.sigma_to_t(level, quantize=True))


def test_timesteps_of_the_table(table: list[float]):
    for time in (0, 1, 17, 500, 998, 999):
        assert log_time(table, table[time]) == pytest.approx(time)
        assert nearest_time(table, table[time]) == time


def test_ddim_uniform_may_be_longer(table: list[float]):
    assert ddim_uniform(table, 20) == [table[index] for index in range(951, 0, -50)] + [0.0]
    assert len(ddim_uniform(table, 30)) == 32  # 31 levels from 1000 // 30 = 33
    assert ddim_uniform(table, 2000)[:1] == table[-1:]


def test_ddim_times():
    assert ddim_times(20) == list(range(951, 0, -50))
    assert ddim_times(1000)[:2] == [999, 999]


def test_discarding():
    assert without_last_level([4.0, 3.0, 2.0, 1.0, 0.0]) == [4.0, 3.0, 2.0, 0.0]
    assert A1111.discards == {"DPM++ 3M SDE", "DPM2", "DPM2 a"}
    assert COMFYUI.discards == {"DPM2", "DPM2 a", "UniPC"}


def test_first_noise(table: list[float]):
    assert A1111.first_scale is not None and COMFYUI.first_scale is not None
    top, middle = table[-1], table[500]
    assert A1111.first_scale("Euler a", top, top) == top
    assert A1111.first_scale("DDIM", top, top) == pytest.approx(math.hypot(1, top))
    assert COMFYUI.first_scale("Euler a", top, top) == pytest.approx(math.hypot(1, top))
    assert COMFYUI.first_scale("Euler a", top * 1.001, top) == pytest.approx(math.hypot(1, top * 1.001))
    assert COMFYUI.first_scale("Euler a", middle, top) == middle
    assert COMFYUI.picture_scale(top, top) == pytest.approx(math.hypot(1, top))
    assert A1111.picture_scale(top, top) == top
    assert DIFFUSERS.first_scale is None


def test_automatic():
    assert A1111.automatic["DPM++ 2M"] == "Karras"
    assert A1111.automatic["DPM++ 2M SDE"] == "Exponential"
    assert "Euler a" not in A1111.automatic
    assert A1111.default == "Normal"


def test_every_choice_is_one_that_exists():
    for each in LIKENESSES.values():
        assert each.weighting in WEIGHTINGS
        assert each.noise in {"cpu", "philox", "comfyui"}
        assert each.sources
        assert {*each.automatic.values(), *each.differs, each.default} <= {*SCHEDULES.values(), None}
        assert {*each.automatic, *each.discards, *each.unlike} - {*SAMPLERS.values()} <= {
            "DPM++ 2M SDE Heun",
            "DDIM CFG++",
        }
