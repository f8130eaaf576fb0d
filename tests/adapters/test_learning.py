"""The fast path of a frozen layer against the plain one in float64, of values that bfloat16 holds exactly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fromnoise.adapters import learning
from fromnoise.adapters.factors import Layer, Lora
from fromnoise.adapters.learning import Learning, _frozen
from fromnoise.adapters.matching import Place
from fromnoise.adapters.patches import Beside
from fromnoise.nn.convolution import Conv2d

LAYERS: dict[str, Callable[[], Layer]] = {
    "linear": lambda: nn.Linear(48, 32),
    "no bias": lambda: nn.Linear(48, 32, bias=False),
    "3x3": lambda: Conv2d(48, 32, 3, padding=1),
    "1x1": lambda: Conv2d(48, 32, 1),
    "stride": lambda: Conv2d(48, 32, 3, stride=2, padding=1),
    "half": lambda: Conv2d(48, 32, 3, padding=1).bfloat16(),
}


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


def of(layer: Layer, dtype: torch.dtype) -> Tensor:
    shape = (3, 7, 48) if isinstance(layer, nn.Linear) else (3, 48, 6, 4)
    return rounded(torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)


def lora(layer: Layer) -> Lora:
    own = torch.Generator().manual_seed(1)
    down = rounded(torch.randn(4, *layer.weight.shape[1:], generator=own) / 7)
    up = rounded(torch.randn(len(layer.weight), 4, generator=own) / 2)
    return Lora(up.requires_grad_(), down.requires_grad_(), scale=0.5)


def learnt(patch: Beside, x: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """The output and the gradients of a weighted sum of it."""
    patch.on()
    x = x.clone().requires_grad_()
    y = patch.layer(x)
    patch.off()
    weights = rounded(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
    (y.double() * weights).sum().backward()
    return [y, *(each.grad for each in (x, *leaves) if each.grad is not None)]


def low(dtype: torch.dtype) -> AbstractContextManager[Any]:
    return nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)


EVERY = [(name, torch.bfloat16, 6e-3) for name in LAYERS] + [(name, torch.float32, 3e-6) for name in [*LAYERS][:-1]]


@pytest.mark.parametrize("beside", [True, False], ids=["lora", "alone"])
@pytest.mark.parametrize(("name", "dtype", "error"), EVERY, ids=lambda each: str(each))
def test_it_is_the_plain_layer(name: str, dtype: torch.dtype, error: float, beside: bool) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().requires_grad_(False)
    for each in layer.parameters():
        each.copy_(rounded(each))
    factors = lora(layer)
    with low(dtype):
        patch = Learning(layer, [(2.0, Place(layer, factors))] if beside else [])
        mine = learnt(patch, of(layer, torch.float32), [factors.up, factors.down])
    exact = factors.to(torch.device("cpu"), torch.float64)
    leaves = [each.detach().requires_grad_() for each in (exact.up, exact.down)]
    exact = Lora(leaves[0], leaves[1], scale=exact.scale)
    layer = layer.double()
    deltas = [(2.0, Place(layer, exact))] if beside else []
    theirs = learnt(Beside(layer, deltas), of(layer, torch.float64), leaves)
    assert mine[0].dtype == dtype and patch._frozen is not None, "the fast path was not taken"
    assert len(mine) == len(theirs) == (4 if beside else 2)
    for one, other in zip(mine, theirs, strict=True):
        assert float((one - other).detach().norm() / other.detach().norm()) < error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_are_made_again_when_the_layer_has_others(dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    patch, x = Learning(layer, []), torch.randn(2, 8)
    with low(dtype):
        before = learnt(patch, x, [])[0]
        layer.weight = nn.Parameter(layer.weight + 1, requires_grad=False)
        after = learnt(patch, x, [])[0]
    assert float((after - before).detach().abs().max()) > 0.1


def test_another_number_format_has_weights_of_its_own() -> None:
    patch, x = Learning(nn.Linear(8, 8).requires_grad_(False), []), torch.randn(2, 8)
    formats = []
    for dtype in (torch.bfloat16, torch.float32, torch.bfloat16):
        with low(dtype):
            formats.append(learnt(patch, x, [])[0].dtype)
    assert formats == [torch.bfloat16, torch.float32, torch.bfloat16]


def test_kernels_are_packed_where_that_is_fast_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(name: str, dtype: torch.dtype = torch.bfloat16) -> tuple[bool, bool]:
        made: Any = _frozen(LAYERS[name](), dtype)
        return made.packed is not None, made.turned is not None

    assert packed("3x3") == (True, True)
    assert packed("stride") == (True, False), "its gradient is no convolution"
    assert packed("half") == (False, False), "a large network's copy would not fit"
    assert packed("3x3", torch.float32) == (True, False)
    monkeypatch.setattr(learning, "FEW", 1000)
    assert packed("3x3", torch.float32) == (False, False) and packed("3x3") == (True, True)
