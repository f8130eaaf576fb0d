"""How weights come into a module: cast as torch casts them, layer by layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fromnoise.checkpoints.loading import CHUNK, fill
from fromnoise.checkpoints.stored import Stored


def test_half_to_bfloat16_is_torchs_cast_bit_for_bit() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.float16)
    weight = every.repeat(CHUNK // len(every) + 1)[None]
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], 1, bias=False)
    fill(layer, {"weight": Stored.of(weight)}, Path("file"), "family", dtype=torch.bfloat16)
    expected = weight.to(torch.bfloat16)
    assert torch.equal(layer.weight.isnan(), expected.isnan())
    assert torch.equal(layer.weight.nan_to_num().view(torch.int16), expected.nan_to_num().view(torch.int16))


def test_each_layer_is_told_of_before_the_next_is_read() -> None:
    told: list[str] = []

    def stored(key: str, *shape: int) -> Stored:
        def read() -> torch.Tensor:
            told.append(key)
            return torch.ones(shape)

        return Stored(shape, torch.float32, read)

    tensors = {"0.weight": stored("0.weight", 2, 3), "1.weight": stored("1.weight", 2, 2)}
    tensors |= {"0.bias": stored("0.bias", 2), "1.bias": stored("1.bias", 2)}
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    fill(network, tensors, Path("file"), "family", ready=lambda layer: told.append(f"{layer.in_features} ready"))
    assert told == ["0.weight", "0.bias", "3 ready", "1.weight", "1.bias", "2 ready"]
