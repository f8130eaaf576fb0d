from __future__ import annotations

import pytest
import torch

from fromnoise.nn.norm import GroupNorm


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_the_fast_gradient_is_torchs(dtype: torch.dtype, limit: float) -> None:
    ours, theirs = GroupNorm(4, 12).to(dtype), torch.nn.GroupNorm(4, 12).to(dtype)
    with torch.no_grad():
        ours.weight.normal_()
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = (torch.randn(3, 12, 5, 6, dtype=dtype) * 2 + 1).to(memory_format=torch.channels_last)
    grad = torch.randn_like(x)
    results = []
    for norm in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(grad)
        results.append((y, leaf.grad, norm.weight.grad, norm.bias.grad))
    assert results[0][0].grad_fn.name() != results[1][0].grad_fn.name(), "the fast path was not taken"
    for mine, reference in zip(*results, strict=True):
        assert bool((mine - reference).abs().max() <= limit * reference.abs().max())


@pytest.mark.parametrize("learns", [True, False])
def test_half_precision_keeps_torchs_values_where_torchs_own_kernel_is_slow(learns: bool) -> None:
    norm = GroupNorm(4, 32).train(learns).requires_grad_(False)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = (torch.randn(3, 32, 5, 6) * 2 + 3).bfloat16().to(memory_format=torch.channels_last)
    exact = torch.nn.functional.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double())
    got = norm(x.requires_grad_(learns))
    assert got.dtype == torch.bfloat16
    assert float((got - exact).detach().norm() / exact.norm()) < 3e-3
