"""Two processes that accelerate launched equal one with twice the batch, and only one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fromnoise.training.order import draws
from fromnoise.training.processes import Processes, SharingLearner
from fromnoise.training.tuning.samples import Pool, Sample

LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
SETTINGS = ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")
SCRIPT = """
import sys
from pathlib import Path
import torch
from fromnoise.training.tuning import dreambooth

torch.set_num_threads(1)
pictures, model, run, batch = sys.argv[1:]
recipe = dreambooth.DreamboothRecipe(
    model=model, token="x", subject="dot", class_pictures=3, lora=True, rank=2, batch=int(batch), rate=0.01, steps=6,
    warmup=3, check_every=3, sample_every=6, sample_steps=2, average=3,
)
result = dreambooth.train([Path(pictures)], Path(run), recipe, Path(run) / "lora.safetensors")
print(f" {result.best_step} ")  # two processes may write one line
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, colour in enumerate(("red", "green", "blue", "white", "black")):
        Image.new("RGB", (20, 20), colour).save(folder / f"{index}.png")
    return folder


def start(launcher: tuple[str, ...], arguments: list[str]) -> str:
    """What a training script started in another process prints; float32, on the CPU."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root)])
    said = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no", "PYTHONPATH": paths}
    script = Path(arguments[2]).parent / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, *launcher, str(script), *arguments]
    done = subprocess.run(command, env={**os.environ, **said}, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path, tiny_model: Path, pictures: Path) -> None:
    pytest.importorskip("accelerate")
    one, two = tmp_path / "one", tmp_path / "two"
    alone = start((), [str(pictures), str(tiny_model), str(one), "4"])
    both = start((*LAUNCH, *SETTINGS), [str(pictures), str(tiny_model), str(two), "2"])
    assert both.split() == alone.split() * 2
    mine, theirs = (torch.load(each / "checkpoint.pt", weights_only=True)["model"] for each in (one, two))
    moved = 0.0
    for name, weight in mine.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=5e-5 * float(weight.abs().max()), msg=name)
        moved += float(weight.abs().max()) if name.endswith("up") else 0.0
    assert moved > 0
    lines = [json.loads(line) for line in (two / "log.jsonl").read_text().splitlines()]
    assert [each["step"] for each in lines if "drift" in each] == [0, 3, 6]


class Pair:
    """An accelerator of two processes, the other of which was asked to stop, or not."""

    num_processes, device = 2, "cpu"

    def __init__(self, other: bool) -> None:
        self.other = other

    def prepare_optimizer(self, optimizer: Any) -> Any:
        return optimizer

    def reduce(self, mine: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return mine + float(self.other)


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("mine", [False, True])
def test_processes_stop_together(mine: bool, other: bool) -> None:
    learner = SharingLearner(Pair(other), None, None)  # type: ignore[arg-type]
    assert learner.agreed(mine) == (mine or other)


def test_parts_of_a_batch_are_the_batch() -> None:
    pool = Pool([Sample(torch.zeros(1, 4, 2, width), (str(index),)) for index, width in enumerate((2, 2, 2, 4, 4))])
    for step in range(12):
        whole = pool.batch(3, step, 4)
        assert pool.batch(3, step, 2, 0, 2) + pool.batch(3, step, 2, 1, 2) == whole
        assert len({sample.shape for sample, _ in whole}) == 1
    assert draws(0, 3, 8, 11) == draws(0, 6, 4, 11) + draws(0, 7, 4, 11)


def test_alone_nothing_is_shared() -> None:
    alone = Processes()
    assert (alone.rank, alone.count, alone.main, alone.device) == (0, 1, True, None)
    assert alone.total(0.1) == 0.1
