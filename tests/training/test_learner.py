from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.seeds import generator
from fromnoise.training.callbacks import Averages, LearningRate
from fromnoise.training.denoiser import DenoiserRecipe
from fromnoise.training.learner import Learner
from fromnoise.training.order import draws, permutation
from fromnoise.training.recipe import read_recipe, write_recipe
from fromnoise.training.run import fit
from tests.training.killing import kill_when_saved


class Line:
    """A task: learn y = 2x, with data that is a function of the step."""

    def __init__(self, slow: float = 0.0) -> None:
        torch.manual_seed(0)
        self.model, self.slow = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 4)), slow

    def batch(self, step: int) -> Tensor:
        time.sleep(self.slow)
        return torch.stack([torch.randn(4, generator=draw.generator("x")) for draw in draws(0, step, 8, 20)])

    def predict(self, batch: Tensor) -> Tensor:
        return self.model(batch)

    def loss(self, prediction: Tensor, batch: Tensor) -> Tensor:
        return (prediction.float() - 2 * batch).square().mean()


def train(folder: Path, steps: int, slow: float = 0.0, resume: bool = True) -> tuple[Line, Averages]:
    task = Line(slow)
    averages = Averages(task.model, (4, 30), every=2)
    folder.mkdir(parents=True, exist_ok=True)
    fit(folder, task, LearningRate(1e-2, 5), averages, steps=steps, batch=8, resume=resume, minutes=0.002)
    return task, averages


def test_training_learns(tmp_path: Path) -> None:
    task, _ = train(tmp_path, 300)
    assert float(task.loss(task.predict(task.batch(0)), task.batch(0)).detach()) < 0.1


def test_resuming_equals_not_stopping(tmp_path: Path) -> None:
    whole, whole_average = train(tmp_path / "whole", 40)
    train(tmp_path / "parts", 17)
    parts, parts_average = train(tmp_path / "parts", 40)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, other)
    for length, average in whole_average.averages.items():
        assert all(map(torch.equal, average, parts_average.averages[length]))


def test_sigkill_loses_nothing_that_a_resume_needs(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", 60)
    code = f"""
from pathlib import Path
from tests.training.test_learner import train
train(Path({str(tmp_path / "killed")!r}), 60, slow=0.05)
"""
    assert 0 < kill_when_saved(code, tmp_path / "killed" / "checkpoint.pt") < 60
    resumed, _ = train(tmp_path / "killed", 60)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    task = Line()
    with torch.no_grad():
        task.model[0].weight.fill_(float("nan"))
    with pytest.raises(FromnoiseError, match="the loss is nan at step 0"):
        Learner(task, torch.optim.SGD(task.model.parameters())).fit(3)


def test_what_is_no_number_does_not_replace_the_last_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, 10)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    task = Line()
    spoilt = task.predict
    task.predict = lambda batch: spoilt(batch) * float("nan")  # type: ignore[method-assign]
    with pytest.raises(FromnoiseError, match="try again with a lower rate"):
        fit(tmp_path, task, LearningRate(1e-2, 5), Averages(task.model, (4, 30), every=2), steps=20, batch=8)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_the_rate_warms_up_stays_and_decays() -> None:
    rate = LearningRate(1.0, warmup=10, decay_at=100, end=120)
    assert [rate.at(step) for step in (0, 9, 50, 99, 100, 110, 120)] == [0.1, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]


def test_every_epoch_shows_each_sample_once() -> None:
    seen = [draw for step in range(5) for draw in draws(1, step, 4, 10)]
    assert sorted(draw.sample for draw in seen[:10]) == list(range(10))
    assert sorted(draw.sample for draw in seen[10:]) == list(range(10))
    assert not torch.equal(permutation(1, 0, 10), permutation(1, 1, 10))


def test_two_halves_of_a_batch_are_the_batch() -> None:
    assert draws(0, 3, 8, 11) == draws(0, 6, 4, 11) + draws(0, 7, 4, 11)


def test_uniform_is_even_over_a_batch() -> None:
    values = sorted(draw.uniform() for draw in draws(0, 5, 64, 1000))
    gaps = [after - before for before, after in pairwise(values)]
    assert max(gaps) < 3 / 64


def test_streams_depend_on_the_whole_key() -> None:
    keys = [("a", 0, 1), ("a", 1, 0), ("b", 0, 1), ("a", 0, 1, 0)]
    numbers = {float(torch.rand((), generator=generator(*key))) for key in keys}
    assert len(numbers) == len(keys)


def test_recipes_read_back(tmp_path: Path) -> None:
    recipe = DenoiserRecipe(steps=7, init='a\\b "c"', averages=(3, 4), rate=1e-5)
    write_recipe(recipe, tmp_path / "recipe.toml")
    assert read_recipe(DenoiserRecipe(), tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [("stepz = 3", "no field 'stepz'"), ("steps = 'many'", "steps must be a whole number"), ("steps =", "can't read")],
)
def test_a_bad_recipe_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(DenoiserRecipe(), tmp_path / "bad.toml")
