from __future__ import annotations

from pathlib import Path

import pytest

from fromnoise.data import Dataset
from fromnoise.evaluation import prepare
from fromnoise.training import judge
from tests.small_dataset import write_dataset
from tests.training.test_judge import QUICK, fake_vectors


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def judge_folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge trained for a moment, and the real pictures it read."""
    run = tmp_path_factory.mktemp("judge-run")
    (run / "quick.toml").write_text(QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "cached_vectors", fake_vectors)
        judge.train(dataset.folder, run, run / "quick.toml")
    prepare(dataset.folder, run / "judge")
    return run / "judge"
