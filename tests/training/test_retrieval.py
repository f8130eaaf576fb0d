from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.data import Dataset
from fromnoise.training.lessons import reworded_prompts
from fromnoise.training.retrieval import retrieval
from tests.small_dataset import COLOURS, write_dataset

WORDS = [*COLOURS, "berry"]


def spelled(texts: Sequence[str]) -> Tensor:
    """Which of the known words a text holds; "berry" is next to the cherry."""
    hold = torch.tensor([[float(word in text.split()) for word in WORDS] for text in texts])
    hold[:, 0] += 0.9 * hold[:, -1]
    return F.normalize(hold + 1e-3, dim=-1)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("shapes"))


def test_the_right_concept_is_found_by_what_it_is_like(shapes: Dataset) -> None:
    found = retrieval(shapes, {"a berry": "1f000", "some lime": "1f001"}, spelled)
    assert (found.top1, found.top5) == (1.0, 1.0)


def test_a_wrong_concept_is_not(shapes: Dataset) -> None:
    found = retrieval(shapes, {"a berry": "1f001", "some lime": "1f001"}, spelled)
    assert found.top1 == 0.5


def test_there_are_two_hundred_held_out_prompts() -> None:
    assert len(reworded_prompts()) == 200
