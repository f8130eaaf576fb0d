"""The compiled attention against torch's in float32, wherever it can be compiled."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fromnoise.nn import tiles
from fromnoise.nn.attention import Attention

pytestmark = pytest.mark.skipif(not tiles.available(), reason="needs a CPU with AMX tiles and a C++ compiler")


def exact(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    a, b, c = (each.float().unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))
    return F.scaled_dot_product_attention(a, b, c).transpose(1, 2).flatten(2)


@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 3),
    width=st.integers(1, tiles.WIDEST),
    queries=st.integers(1, 300),
    keys=st.integers(1, 300),
    spread=st.sampled_from((0.1, 1.0, 8.0)),
)
@settings(max_examples=60, deadline=None)
def test_any_sizes_equal_float32(batch: int, heads: int, width: int, queries: int, keys: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(queries)
    sizes = ((queries, spread), (keys, spread), (keys, 1.0))
    q, k, v = (torch.randn(batch, n, heads * width, generator=generator).mul(by).bfloat16() for n, by in sizes)
    wanted = exact(q, k, v, heads)
    with torch.no_grad():
        assert (tiles.attend(q, k, v, heads) - wanted).abs().max() <= 0.01 * v.abs().max()


def test_what_is_not_a_number_is_not_hidden() -> None:
    q, k, v = torch.randn(3, 1, 40, 16).bfloat16()
    q[0, 3, 5] = float("nan")
    mixed = tiles.attend(q, k, v, 2)
    assert mixed[0, 3, :8].isnan().all() and not mixed[0, :3].isnan().any()


def test_a_layer_gives_the_same_either_way() -> None:
    torch.manual_seed(0)
    layer, x, words = (
        Attention(32, 4, 24).bfloat16(),
        torch.randn(2, 50, 32).bfloat16(),
        torch.randn(2, 77, 24).bfloat16(),
    )
    with torch.no_grad():
        plain = layer(x, words)
        layer.tiled = True
        assert not torch.equal(plain, torch.zeros_like(plain))
        assert (layer(x, words) - plain).norm() <= 0.01 * plain.norm()
    assert layer(x, words).requires_grad


def test_without_a_compiler_torch_attends(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("FROMNOISE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    tiles._kernel.cache_clear()
    try:
        assert not tiles.available()
    finally:
        monkeypatch.undo()
        tiles._kernel.cache_clear()
    assert tiles.available()
