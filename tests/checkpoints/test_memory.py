"""Weights are mapped and cast one after another: memory holds the model once, in the format asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fromnoise.checkpoints.stored import Stored
from fromnoise.checkpoints.tensor_file import write_stored

LAYERS, WIDTH = 48, 1024
SIZE = LAYERS * (WIDTH + 1) * WIDTH
"""Numbers in the model: 201 MB of float32."""

LOAD = """
import sys
from pathlib import Path
import torch
from fromnoise.checkpoints.loading import fill
from fromnoise.checkpoints.weights import open_weights

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

before = anonymous()
with torch.device("meta"):
    model = torch.nn.Sequential(*(torch.nn.Linear({width}, {width}) for _ in range({layers})))
weights = open_weights(Path(sys.argv[1]))
fill(model, weights.tensors, weights.path, "model", dtype=getattr(torch, sys.argv[2]))
with torch.no_grad():
    total = sum(float(each.sum()) for each in model.parameters())  # every page is read
print(anonymous() - before, total)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as float32 in both formats."""
    folder = tmp_path_factory.mktemp("memory")
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    weights = {key: torch.full(each.shape, 0.25) for key, each in model.state_dict().items()}
    torch.save({"state_dict": weights}, folder / "x.ckpt")
    write_stored(folder / "x.safetensors", {key: Stored.of(each) for key, each in weights.items()}, {})
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells its anonymous memory")
@pytest.mark.parametrize(
    ("name", "dtype", "copied"),
    [("x.safetensors", "bfloat16", 2), ("x.ckpt", "bfloat16", 2), ("x.safetensors", "float32", 0)],
)
def test_anonymous_memory(files: Path, name: str, dtype: str, copied: int):
    """As bfloat16 the model's size and at most 15 % more; as float32 no copy at all, for the file stays mapped."""
    code = LOAD.format(width=WIDTH, layers=LAYERS)
    done = subprocess.run([sys.executable, "-c", code, files / name, dtype], capture_output=True, text=True, check=True)
    grown, total = map(float, done.stdout.split())
    assert total == SIZE * 0.25
    assert SIZE * copied <= grown <= SIZE * copied + 0.15 * SIZE * (copied or 4)
