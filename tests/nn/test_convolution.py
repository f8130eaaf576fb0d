"""Packed convolutions, and attention and gates as oneDNN computes them."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fromnoise.adapters.patches import Fused
from fromnoise.nn import attention
from fromnoise.nn.attention import GEGLU, Attention
from fromnoise.nn.circular import Circular
from fromnoise.nn.convolution import Conv2d, dense

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


def convolution(dtype: torch.dtype, **options: int) -> Conv2d:
    torch.manual_seed(0)
    return Conv2d(24, 40, options.pop("kernel", 3), **options).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2}, {"kernel": 1}])
def test_packing_changes_no_answer_and_is_undone_bit_for_bit(dtype: torch.dtype, options: dict[str, int]) -> None:
    layer, x = convolution(dtype, **options), torch.randn(2, 24, 9, 7).to(dtype)
    weight, plain = layer.weight, layer(x)
    plus = torch.randn_like(plain)
    layer.pack()
    assert layer.weight.is_mkldnn == (dtype != torch.float32 or "kernel" not in options)
    limit = 1e-5 if dtype == torch.float32 else 2e-2
    assert (layer(x) - plain).abs().max() < limit
    assert (layer(x, plus=plus) - (plain + plus)).abs().max() < 2 * limit
    layer.unpack()
    assert torch.equal(layer.weight, weight) and layer.weight.dtype == dtype


def test_a_packed_convolution_still_wraps_around_and_has_gradients() -> None:
    layer, x = convolution(torch.float32, padding=1), torch.randn(1, 24, 6, 6)
    with Circular("xy"):
        wrapped = layer(x)
        layer.pack()
        assert torch.equal(layer(x), wrapped)
    x.requires_grad_()
    layer(x).square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_leaves_a_packed_layer_is_dense(dtype: torch.dtype) -> None:
    layer, fresh, x = convolution(dtype), convolution(dtype), torch.randn(1, 24, 6, 6).to(dtype)
    weight = layer.weight
    for each in (layer, fresh):
        each.pack()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other.weight, weight) and not other.weight.requires_grad
    assert torch.equal(layer.state_dict()["weight"], weight) and layer.weight.is_mkldnn
    fresh.load_state_dict({"weight": 2 * weight, "bias": fresh.bias})
    assert torch.equal(fresh.weight, 2 * weight) and fresh(x).shape == layer(x).shape


def test_a_packed_layer_is_cast_as_others_are() -> None:
    layer, x = convolution(torch.float32), torch.randn(1, 24, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(x)
        layer.pack()
        assert torch.equal(layer(x), plain) and plain.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_number_formats_are_not_packed(dtype: torch.dtype) -> None:
    layer = convolution(dtype)
    layer.pack()
    assert not layer.weight.is_mkldnn


def test_what_learns_is_never_packed() -> None:
    layer = convolution(torch.float32).requires_grad_(True)
    layer.pack()
    assert not layer.weight.is_mkldnn


class OnesPlace:
    """An adapter's place whose change of a weight is one everywhere."""

    def delta(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        return torch.ones(40, 24, 3, 3, device=device, dtype=dtype)


def test_an_adapter_on_a_packed_weight_is_packed_too_and_comes_off() -> None:
    layer, x = convolution(torch.float32, padding=1), torch.randn(1, 24, 5, 5)
    expected = F.conv2d(x, layer.weight + 0.5, layer.bias, padding=1)
    layer.pack()
    packed = layer.weight
    patch = Fused(layer, [(0.5, OnesPlace())])  # type: ignore[list-item]
    patch.on()
    assert layer.weight.is_mkldnn and torch.allclose(layer(x), expected, atol=1e-4)
    patch.off()
    assert layer.weight is packed


def test_the_gate_in_onednn_is_the_gate() -> None:
    torch.manual_seed(0)
    gate = GEGLU(32, 64).bfloat16().requires_grad_(False)
    x = torch.randn(2, 10, 32).bfloat16()
    value, opened = F.linear(x.float(), gate.proj.weight.float(), gate.proj.bias.float()).chunk(2, -1)
    exact = value * F.gelu(opened)
    with torch.no_grad():
        assert gate._fuses(x)
        assert (gate(x).float() - exact).abs().max() <= (0.01 * exact.abs().max())
    with torch.enable_grad():
        assert not gate._fuses(x)
    gate.proj.forward = gate.proj.forward  # as an adapter beside it does
    with torch.no_grad():
        assert not gate._fuses(x)


def test_attention_by_rows_is_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(attention, "ROWS", 16)
    torch.manual_seed(0)
    layer = Attention(24, 3).bfloat16().requires_grad_(False)
    x = torch.randn(2, 40, 24).bfloat16()
    q, k, v = (layer._split(project(x)) for project in (layer.to_q, layer.to_k, layer.to_v))
    with torch.no_grad():
        assert attention._rows_pay(q, k)
        exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
        assert (attention.attend(q, k, v).float() - exact).abs().max() < 0.02 * exact.abs().max()
        assert not attention._rows_pay(q.float(), k.float())


def test_dense_of_an_ordinary_weight_is_itself() -> None:
    weight = nn.Parameter(torch.ones(2))
    assert dense(weight) is weight
