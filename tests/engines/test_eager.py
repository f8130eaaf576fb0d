"""Which networks the eager engine lays out for oneDNN, by size and number format alone: nothing is computed."""

from __future__ import annotations

import pytest
import torch

from fromnoise.engines.eager import gains, leave
from fromnoise.nn.convolution import Conv2d
from fromnoise.runtime.device import SMALL


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("parameters", "packed"), [(SMALL, True), (SMALL // 2, False)])
def test_packing_pays_from_some_parameters_on(parameters: int, dtype: torch.dtype, packed: bool) -> None:
    layer = Conv2d(1000, parameters // 1000, 1, bias=False, device="meta", dtype=dtype).requires_grad_(False)
    assert gains(layer, parameters) == packed
    assert not gains(layer.requires_grad_(), parameters)


def test_what_a_trainer_has_is_left_alone() -> None:
    layer = Conv2d(1000, SMALL // 1000, 1, bias=False, device="meta").requires_grad_(False)
    leave(layer)
    assert not gains(layer, SMALL)
