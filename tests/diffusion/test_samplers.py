from __future__ import annotations

import subprocess
import sys
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fromnoise.diffusion.samplers import BROWNIAN, SAMPLERS, TWO_DENOISERS, VARIANCE_PRESERVING, Step, ancestral_split
from fromnoise.diffusion.samplers.restart import restart_plan
from fromnoise.diffusion.samplers_table import SAMPLER_FACTS, SCHEDULE_FACTS
from fromnoise.diffusion.schedules import SPACINGS, karras
from fromnoise.request import SAMPLERS as REQUEST_SAMPLERS
from fromnoise.request import SCHEDULES as REQUEST_SCHEDULES
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.seeds import BrownianNoise, PictureNoise

SHAPE = (2, 4, 4)
SIGMAS = karras(0.03, 10.0, 21)
"""Steps enough for Restart to restart."""


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of unit normal data."""
    return x / (1 + sigma[:, None, None, None] ** 2)


def guided_pair(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The same with a little guidance."""
    return denoise(x, sigma) * 1.1 + 0.01, denoise(x, sigma)


def run(name: str, start: Step | None = None, seeds: tuple[int, ...] = (3, 4)) -> list[Step]:
    """The whole drawing, or the rest of it. The pictures differ in size, so that adaptive steps do."""
    noise = PictureNoise(list(seeds), SHAPE)
    x = noise() * torch.tensor([seed * 3.0 for seed in seeds])[:, None, None, None]
    source = BrownianNoise(list(seeds), SHAPE) if name in BROWNIAN else noise
    model = guided_pair if name in TWO_DENOISERS else denoise
    return list(SAMPLERS[name](model, x, SIGMAS, noise=source, start=start))


def finish_all(folder: Path) -> None:
    """Go on from every Step saved in `folder`, and write where each ends."""
    for path in sorted(folder.glob("*.step")):
        steps = run(path.name.split(".")[0], Step.read(path))
        (steps or [Step.read(path)])[-1].save(path.with_suffix(".end"))


def test_a_saved_step_continues_bit_exactly_in_another_process(tmp_path: Path) -> None:
    ends = {}
    for name in SAMPLERS:
        whole = run(name)
        ends[name] = whole[-1]
        assert not torch.equal(whole[len(whole) // 2].x, whole[-1].x)
        for step in [*whole[::2], whole[-1]]:
            step.save(tmp_path / f"{name}.{step.index}.step")
    code = f"""
from pathlib import Path
from tests.diffusion.test_samplers import finish_all
finish_all(Path({str(tmp_path)!r}))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    paths = list(tmp_path.glob("*.end"))
    assert len(paths) > 10 * len(SAMPLERS) - 10
    for path in paths:
        name = path.name.split(".")[0]
        end = Step.read(path)
        assert end.index == ends[name].index, path.name
        assert torch.equal(end.x, ends[name].x), path.name


def test_a_step_keeps_all_it_holds(tmp_path: Path) -> None:
    step = Step(3, 1.5, *torch.rand(3, 1, *SHAPE), history=(torch.rand(2), torch.rand(3)), guidance=(torch.rand(4),))
    step.save(tmp_path / "a")
    read = Step.read(tmp_path / "a")
    assert (read.index, read.sigma, read.noise_state) == (3, 1.5, None)
    for name in ("history", "guidance"):
        assert all(map(torch.equal, getattr(read, name), getattr(step, name)))
        assert len(getattr(read, name)) == len(getattr(step, name))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    together, alone = run(name, seeds=(3, 4, 5)), run(name, seeds=(4,))
    assert torch.equal(together[-1].x[1], alone[-1].x[0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_count_up_and_tell_their_level(name: str) -> None:
    steps = run(name, seeds=(3,))
    assert [step.index for step in steps] == list(range(1, len(steps) + 1))
    assert steps[0].sigma == pytest.approx(10.0)
    assert all(torch.equal(before.x, after.noisy) for before, after in pairwise(steps)) or name == "restart"
    if name not in {"dpm-fast", "dpm-adaptive"}:
        assert len(steps) == len(SIGMAS) - 1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_few_steps_work(name: str, steps: int) -> None:
    """However coarse the steps, no more is left than there was noise."""
    source = BrownianNoise([1], SHAPE) if name in BROWNIAN else PictureNoise([1], SHAPE)
    model = guided_pair if name in TWO_DENOISERS else denoise
    x = torch.full((1, *SHAPE), 10.0)
    end = list(SAMPLERS[name](model, x, karras(0.03, 10.0, steps), noise=source))[-1].x
    assert bool((end.abs() < 11).all())


# Order of convergence


def path(x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """The exact way of the probability-flow equation for unit normal data."""
    return x * ((1 + sigma_next**2) / (1 + sigma**2)) ** 0.5


def order(name: str, few: int, many: int, sigmas: Any, **fields: Any) -> float:
    """The measured exponent between `few` and `many` steps from sigma 10 to 1."""
    x = torch.full((1, *SHAPE), 5.0, dtype=torch.float64)

    def error(steps: int) -> float:
        end = list(SAMPLERS[name](denoise, x, sigmas(steps), **fields))[-1].x
        return float((end - path(x, 10.0, 1.0)).abs().max())

    return float(torch.log2(torch.tensor(error(few) / error(many))) / torch.log2(torch.tensor(many / few)))


def even(steps: int) -> Tensor:
    return torch.linspace(10.0, 1.0, steps + 1, dtype=torch.float64)


FIXED_ORDERS = [
    ("euler", 1, {}),
    ("ddim", 1, {}),
    ("heun", 2, {}),
    ("restart", 2, {"noise": None}),
    ("dpm2", 2, {}),
    ("dpm2-a", 2, {"noise": None, "eta": 0.0}),
    ("dpmpp-2m", 2, {}),
    ("dpmpp-2m-sde", 2, {"noise": None, "eta": 0.0}),
    ("dpmpp-2s-a", 2, {"noise": None, "eta": 0.0}),
    ("dpmpp-sde", 2, {"noise": None, "eta": 0.0}),
]


@pytest.mark.parametrize(("name", "expected", "fields"), FIXED_ORDERS)
def test_order_of_convergence(name: str, expected: int, fields: dict[str, Any]) -> None:
    """Halving the steps' width divides the error by 2^order."""
    few, many = (8, 16) if name == "restart" else (64, 128)  # below 20 steps Restart does not restart
    assert order(name, few, many, even, **fields) == pytest.approx(expected, abs=0.4)


def test_order_of_dpm_fast() -> None:
    """Third order when the last step is not first order: 3 k + 2 calls. Its sigmas end in the 0 it does not visit."""

    def sigmas(calls: int) -> Tensor:
        return torch.cat([torch.linspace(10.0, 1.0, calls, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])

    assert order("dpm-fast", 62, 125, sigmas) == pytest.approx(3, abs=0.4)


@pytest.mark.parametrize("solver_order", [1, 2])
def test_order_of_unipc(solver_order: int) -> None:
    """The corrector raises UniP-p to p + 1; the corrected x is known one call later."""
    x = torch.full((1, *SHAPE), 5.0, dtype=torch.float64)

    def error(steps: int) -> float:
        sigmas = torch.cat([even(steps), torch.tensor([0.9, 0.8, 0.0], dtype=torch.float64)])
        corrected = list(SAMPLERS["unipc"](denoise, x, sigmas, order=solver_order))[steps].history[0]
        return float((corrected - path(x, 10.0, 1.0)).abs().max())

    assert torch.log2(torch.tensor(error(64) / error(128))) == pytest.approx(solver_order + 1, abs=0.4)


def slope(x: Tensor, sigma: float) -> Tensor:
    return x * sigma / (1 + sigma**2)


MULTISTEP = {
    "lms": (4, slope, {}),
    "plms": (4, slope, {}),
    "dpmpp-3m-sde": (3, lambda x, sigma: x / (1 + sigma**2), {"noise": None, "eta": 0.0}),
}


@pytest.mark.parametrize("name", MULTISTEP)
def test_order_of_multistep_samplers_once_they_have_a_history(name: str) -> None:
    """With an exact history, as if resumed from a perfect solver, the full order shows."""
    expected, kept, fields = MULTISTEP[name]

    def error(steps: int) -> float:
        sigmas = even(steps)
        on_path = [path(torch.full((1, *SHAPE), 5.0).double(), 10.0, level) for level in sigmas.tolist()]
        history = tuple(kept(on_path[index], float(sigmas[index])) for index in (2, 1, 0))
        history = history[: 2 if name == "dpmpp-3m-sde" else 3]
        start = Step(3, float(sigmas[2]), on_path[2], on_path[2], on_path[3], history=history)
        end = list(SAMPLERS[name](denoise, on_path[0], sigmas, start=start, **fields))[-1].x
        return float((end - on_path[-1]).abs().max())

    assert torch.log2(torch.tensor(error(150) / error(300))) == pytest.approx(expected, abs=0.4)


def test_adaptive_steps_keep_to_the_tolerance() -> None:
    x = torch.full((1, *SHAPE), 5.0, dtype=torch.float64)
    steps = list(SAMPLERS["dpm-adaptive"](denoise, x, torch.tensor([10.0, 1.0, 0.0]).double()))
    assert steps[-1].x[0, 0, 0, 0] == pytest.approx(float(path(x, 10.0, 1.0)[0, 0, 0, 0]), rel=0.05)
    assert len(steps) < 20


def test_adaptive_pictures_have_their_own_steps() -> None:
    """An easy picture beside a hard one takes the steps it takes alone, then waits."""
    hard = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1)) * 10
    easy = hard * 1e-3
    sample = SAMPLERS["dpm-adaptive"]
    together = list(sample(denoise, torch.cat([hard, easy]), SIGMAS))
    alone = {row: list(sample(denoise, x, SIGMAS)) for row, x in enumerate((hard, easy))}
    assert len(alone[1]) < len(alone[0]) == len(together)
    for row, steps in alone.items():
        assert all(torch.equal(each.x[0], both.x[row]) for each, both in zip(steps, together, strict=False))
        assert torch.equal(steps[-1].x[0], together[-1].x[row])


def test_adaptive_steps_give_up_on_what_is_not_finite() -> None:
    with pytest.raises(FromnoiseError, match="not finite"):
        list(SAMPLERS["dpm-adaptive"](lambda x, sigma: x * float("nan"), torch.ones(1, *SHAPE), SIGMAS))


def test_the_table_counts_calls_right() -> None:
    for name, facts in SAMPLER_FACTS.items():
        calls = count()

        def counted(x: Tensor, sigma: Tensor, name: str = name, calls: Any = calls) -> Any:
            next(calls)
            return guided_pair(x, sigma) if name in TWO_DENOISERS else denoise(x, sigma)

        noise = PictureNoise([3], SHAPE)
        list(SAMPLERS[name](counted, noise() * 10, SIGMAS, noise=noise))
        if facts.calls is not None:
            assert abs(next(calls) - facts.calls * (len(SIGMAS) - 1)) <= 1, name


def test_the_tables_name_the_same_samplers_and_schedules() -> None:
    assert list(SAMPLERS) == list(SAMPLER_FACTS) == list(REQUEST_SAMPLERS)
    assert list(SCHEDULE_FACTS) == list(REQUEST_SCHEDULES) == ["model", *SPACINGS]
    assert set(SAMPLERS) >= VARIANCE_PRESERVING | BROWNIAN | TWO_DENOISERS


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_knows_who_adds_noise(name: str) -> None:
    class Refuses:
        state = None

        def __call__(self, sigma: float, sigma_next: float) -> Tensor:
            raise AssertionError(f"{name} asked for noise")

    model = guided_pair if name in TWO_DENOISERS else denoise
    steps = SAMPLERS[name](model, torch.ones(1, *SHAPE), SIGMAS, noise=Refuses())
    if SAMPLER_FACTS[name].deterministic:
        list(steps)
    else:
        with pytest.raises(AssertionError, match="asked for noise"):
            list(steps)


def test_ends_only_samplers_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="fromnoise"):
        run("dpm-fast")
        run("dpm-adaptive")
    assert [record.message.split(" uses only the ends")[0] for record in caplog.records] == ["DPM fast", "DPM adaptive"]
    assert "10 to 0.03" in caplog.text


def test_ancestral_noise_and_step_add_up() -> None:
    down, up = ancestral_split(3.0, 2.0)
    assert down**2 + up**2 == pytest.approx(4.0)
    assert ancestral_split(3.0, 2.0, 0.0) == (2.0, 0.0)
    assert ancestral_split(3.0, 0.0) == (0.0, 0.0)


def test_restart_goes_up_as_often_as_the_rule_says() -> None:
    def climbs(steps: int) -> list[tuple[float, float]]:
        plan = restart_plan(karras(0.03, 14.6, steps))
        assert len(plan) == steps
        return [(before[1], after[0]) for before, after in pairwise(plan) if after[0] > before[1]]

    assert [len(climbs(steps)) for steps in (19, 20, 35, 36, 80)] == [0, 1, 1, 2, 2]
    for low, high in climbs(80):
        assert low == pytest.approx(0.1, rel=0.2)
        assert high == pytest.approx(2.0, rel=0.2)
