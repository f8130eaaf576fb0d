"""The fast path of a frozen layer against the plain one in float64, of values that bfloat16 holds exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

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


@pytest.mark.parametrize("beside", [True, False], ids=["lora", "alone"])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_plain_layer(name: str, beside: bool) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().requires_grad_(False)
    for each in layer.parameters():
        each.copy_(rounded(each))
    factors = lora(layer)
    with torch.autocast("cpu", torch.bfloat16):
        deltas = [(2.0, Place(layer, factors))] if beside else []
        mine = learnt(Learning(layer, deltas), of(layer, torch.float32), [factors.up, factors.down])
    exact = factors.to(torch.device("cpu"), torch.float64)
    leaves = [each.detach().requires_grad_() for each in (exact.up, exact.down)]
    exact = Lora(leaves[0], leaves[1], scale=exact.scale)
    layer = layer.double()
    deltas = [(2.0, Place(layer, exact))] if beside else []
    theirs = learnt(Beside(layer, deltas), of(layer, torch.float64), leaves)
    assert mine[0].dtype == torch.bfloat16, "the fast path was not taken"
    assert len(mine) == len(theirs) == (4 if beside else 2)
    for one, other in zip(mine, theirs, strict=True):
        assert float((one - other).detach().norm() / other.detach().norm()) < 6e-3


def test_weights_are_made_again_when_the_layer_has_others() -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    patch, x = Learning(layer, []), torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        before = learnt(patch, x, [])[0]
        layer.weight = nn.Parameter(layer.weight + 1, requires_grad=False)
        after = learnt(patch, x, [])[0]
    assert float((after - before).detach().abs().max()) > 0.1


def test_a_gradient_by_the_input_takes_a_packed_kernel_where_it_may() -> None:
    packed, strided, half = (_frozen(LAYERS[name]()) for name in ("3x3", "stride", "half"))
    assert packed.turned is not None and strided.turned is None and half.packed is None  # type: ignore[attr-defined]
