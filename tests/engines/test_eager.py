"""Which networks the eager engine lays out for oneDNN, by size and number format alone: nothing is computed."""

from __future__ import annotations

import pytest
import torch

from fromnoise.engines.eager import gains
from fromnoise.nn.convolution import Conv2d
from fromnoise.runtime.device import SMALL


@pytest.mark.parametrize(
    ("parameters", "dtype", "packed"),
    [
        (SMALL, torch.float32, True),
        (SMALL // 2, torch.float32, False),
        (SMALL, torch.bfloat16, True),
        (SMALL // 2, torch.bfloat16, False),
    ],
)
def test_packing_pays_from_some_parameters_on(parameters: int, dtype: torch.dtype, packed: bool) -> None:
    layer = Conv2d(1000, parameters // 1000, 1, bias=False, device="meta", dtype=dtype).requires_grad_(False)
    assert gains(layer, parameters) == packed
    assert not gains(layer.requires_grad_(), parameters)
