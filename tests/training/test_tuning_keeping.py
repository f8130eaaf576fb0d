"""The base model's own answers, learnt again beside new pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.pipeline import load
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.training.processes import Processes
from fromnoise.training.tuning import keeping as module
from fromnoise.training.tuning.factors import learning_factors
from fromnoise.training.tuning.keeping import Keeping, joined
from fromnoise.training.tuning.lora import KeepingTask, LoraRecipe, new_factors
from fromnoise.training.tuning.samples import Pool, Sample
from fromnoise.training.tuning.task import Learns, TuningTask
from fromnoise.training.tuning.trajectories import known_prompts


@pytest.fixture
def parts(tiny_model: Path) -> tuple[Keeping, KeepingTask]:
    """What is kept of two made-up drawings, and a task that keeps it."""
    recipe = LoraRecipe(model=str(tiny_model), batch=3, keep=2)
    pipeline = load(tiny_model)
    side, channels = pipeline.unet.config.sample_size, pipeline.unet.config.in_channels
    own = torch.Generator().manual_seed(0)
    states = torch.randn(2, 3, channels, side, side, generator=own)
    drawings = [Sample(each, (f"dot {index}",)) for index, each in enumerate(states)]
    factors = new_factors(pipeline, recipe)
    teacher = TuningTask(pipeline, Learns(factors, pipeline.prompts), (), recipe)
    kept = Keeping(teacher, drawings, torch.tensor([9.0, 2.0, 0.0]), weight=2.0)
    pool = Pool([Sample(each[:1].half(), ("a dot",)) for each in states])
    return kept, KeepingTask(pipeline, learning_factors(pipeline, factors), [pool], recipe, keeping=kept)


def moved(task: KeepingTask, kept: Keeping) -> float:
    """The loss on what is kept."""
    batch = kept.batch(0, 0, 4, Processes())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        return float(task.loss(task.predict(batch), batch))


def test_nothing_pulls_until_something_has_moved(parts: tuple[Keeping, KeepingTask]) -> None:
    kept, task = parts
    before = moved(task, kept)
    with torch.no_grad():
        for name, each in task.model.named_parameters():
            if name.endswith("up"):
                each.normal_()
    assert before < 1e-4 < 10 * before + 1e-3 < moved(task, kept)


def test_a_step_has_as_many_states_as_pictures_and_repeats_itself(parts: tuple[Keeping, KeepingTask]) -> None:
    kept, task = parts
    one, other = task.batch(4), task.batch(4)
    assert len(one.captions) == 6
    assert one.captions == other.captions
    assert torch.equal(one.example.input, other.example.input)
    assert set(one.captions[3:]) <= set(kept.captions)
    assert not torch.equal(one.example.input[3:], task.batch(5).example.input[3:])


def test_every_fourth_state_is_answered_without_words(parts: tuple[Keeping, KeepingTask]) -> None:
    kept, _ = parts
    assert kept.captions == ["", "dot 0", "dot 1", "dot 1"]


def test_a_model_that_says_nothing_of_what_it_knows_keeps_nothing(tmp_path: Path, tiny_model: Path) -> None:
    pipeline: Any = load(tiny_model)
    assert module.keeping(pipeline, tmp_path / "kept", LoraRecipe(), 4, 1.0, lambda done, total: None) is None
    assert not (tmp_path / "kept").exists()


def test_half_of_what_is_kept_names_no_style() -> None:
    prompts = known_prompts(load(EMBEDDED_MODEL), 10, 0, plain=2)
    assert [" style" in each for each in prompts] == [False, True] * 5


def test_joined_batches_keep_their_order(parts: tuple[Keeping, KeepingTask]) -> None:
    kept, _ = parts
    one, other = (kept.batch(0, step, 2, Processes()) for step in (0, 1))
    both = joined(one, other)
    assert both.captions == one.captions + other.captions
    assert torch.equal(both.example.weight, torch.cat([one.example.weight, other.example.weight]))
