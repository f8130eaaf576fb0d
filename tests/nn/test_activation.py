"""The compiled norm and SiLU against torch's in float32, wherever it can be compiled."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fromnoise.nn import activation
from fromnoise.nn.norm import GroupNorm, silu_of

pytestmark = pytest.mark.skipif(not activation.available(), reason="needs AVX512-BF16 and a C++ compiler")


def random_norm(channels: int, groups: int) -> GroupNorm:
    norm = GroupNorm(groups, channels)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    norm = norm.bfloat16().eval().requires_grad_(False)
    norm.fused = True
    return norm


def maps(*sizes: int, spread: float = 1.0, middle: float = 0.0) -> Tensor:
    return (torch.randn(sizes) * spread + middle).bfloat16().contiguous(memory_format=torch.channels_last)


def exact(norm: GroupNorm, x: Tensor) -> Tensor:
    weight, bias = norm.weight.float(), norm.bias.float()
    return F.silu(F.group_norm(x.float(), norm.num_groups, weight, bias, norm.eps))


@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from((16, 32, 48, 320)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    spread=st.sampled_from((1e-3, 1.0, 30.0)),
    middle=st.sampled_from((0.0, 5.0)),
)
@settings(max_examples=60, deadline=None)
def test_any_sizes_equal_float32(
    batch: int, channels: int, height: int, width: int, spread: float, middle: float
) -> None:
    torch.manual_seed(height)
    norm, x = random_norm(channels, 8), maps(batch, channels, height, width, spread=spread, middle=middle)
    wanted = exact(norm, x)
    with torch.no_grad():
        assert activation.supported(norm, x)
        assert (silu_of(norm, x) - wanted).abs().max() <= 0.006 * wanted.abs().max()


def test_what_is_not_a_number_is_not_hidden() -> None:
    norm, x = random_norm(32, 4), maps(1, 32, 6, 5)
    x[0, 9, 2, 3] = float("nan")
    with torch.no_grad():
        made = silu_of(norm, x)
    assert made[0, 8:16].isnan().all() and not made[0, :8].isnan().any() and not made[0, 16:].isnan().any()


def test_extremes_are_kept() -> None:
    measured = activation.Activation(torch.full((16,), 1e4), torch.zeros(16))
    x = maps(1, 16, 1, 3)
    x[..., 0], x[..., 1], x[..., 2] = 3e30, -3e30, 0.0
    made = measured(x, torch.empty_like(x))
    assert (made[..., 0] > 1e34).all() and (made[..., 1] == 0).all() and (made[..., 2] == 0).all()


def test_torch_stays_for_everything_else() -> None:
    norm, x = random_norm(32, 4), maps(1, 32, 6, 5)
    assert not activation.supported(norm, x), "gradients may be asked for"
    with torch.no_grad():
        assert activation.supported(norm, x)
        assert not activation.supported(norm, x.contiguous())
        assert not activation.supported(norm.float(), x.float())
        norm.bfloat16().register_forward_hook(lambda *_: None)
        assert not activation.supported(norm, x)


def test_without_a_compiler_torch_norms(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("FROMNOISE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    caches = activation.available, activation._kernels
    for each in caches:
        each.cache_clear()
    try:
        assert not activation.available()
    finally:
        monkeypatch.undo()
        for each in caches:
            each.cache_clear()
    assert activation.available()
