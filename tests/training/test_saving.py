"""Checkpoints that are damaged, cut short or of something else, and a disk that is full."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.training.callbacks import Averages, LearningRate
from fromnoise.training.run import fit
from fromnoise.training.saving import Damaged, read, save
from tests.training.test_learner import Line, train


def flipped(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes(255 - each for each in whole[middle : middle + 1000]) + whole[middle + 1000 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda whole: whole[:-3000],
    "empty": lambda whole: b"",
    "flipped bytes": flipped,
    "something else": lambda whole: b"steps = 3\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path, damage: str) -> None:
    train(tmp_path, 12)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(FromnoiseError, match=r"checkpoint\.pt is damaged; remove it, or give another --run$"):
        train(tmp_path, 20)


def test_every_changed_number_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "numbers.pt"
    save(path, {"numbers": torch.zeros(1000)})
    assert torch.equal(read(path)["numbers"], torch.zeros(1000))
    whole = path.read_bytes()
    place = whole.index(bytes(1000)) + 500
    path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    assert torch.load(path, weights_only=True)["numbers"].any()
    with pytest.raises(Damaged):
        read(path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    train(tmp_path, 5)
    task = Line()
    task.model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(UsageError, match=r"checkpoint\.pt is not of what is trained here; give the --run that is$"):
        fit(tmp_path, task, LearningRate(1e-2, 5), Averages(task.model, ()), steps=9, batch=8)
    save(tmp_path / "checkpoint.pt", {"step": 5})
    with pytest.raises(UsageError, match="is not of what is trained here"):
        train(tmp_path, 9)


def test_a_full_disk_is_one_line_and_leaves_the_file_from_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save(path, {"step": 1})
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(FromnoiseError, match=r"can't write .*checkpoint\.pt: .*; make room, then go on with"):
            save(path, {"step": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert read(path) == {"step": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_an_average_of_another_length_begins_with_the_weights_that_were_learnt(tmp_path: Path) -> None:
    learnt, _ = train(tmp_path, 50)
    task = Line()
    averages = Averages(task.model, (7,))
    fit(tmp_path, task, LearningRate(1e-2, 5), averages, steps=50, batch=8)
    assert all(map(torch.equal, averages.averages[7], learnt.model.parameters()))
