"""Doubling small float32 maps by four 2x2 kernels, against interpolating and convolving."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.nn import bands
from fromnoise.nn.circular import Circular
from fromnoise.nn.resnet import Upsample

SIDES = st.integers(1, 9)


def pair(channels: int, seed: int = 0) -> tuple[Upsample, Upsample]:
    """A layer as it is, and the same packed."""
    torch.manual_seed(seed)
    plain = Upsample(channels).eval().requires_grad_(False)
    packed = copy.deepcopy(plain)
    packed.conv.pack()
    return plain, packed


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with every map that is doubled by four kernels."""
    asked: list[str] = []
    whole = bands.convolve_doubled
    monkeypatch.setattr(bands, "convolve_doubled", lambda conv, x: (asked.append("doubled"), whole(conv, x))[1])
    return asked


@given(st.integers(1, 3), st.sampled_from((1, 3, 16, 24)), SIDES, SIDES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_interpolating_and_convolving(batch: int, channels: int, height: int, width: int, last: bool) -> None:
    plain, packed = pair(channels)
    x = torch.randn(batch, channels, height, width)
    given = x.contiguous(memory_format=torch.channels_last) if last else x
    with torch.no_grad():
        torch.testing.assert_close(packed(given), plain(x), atol=1e-5, rtol=1e-5)
        assert bands.doubling_pays(given, packed.conv) == torch.backends.mkldnn.is_available()


def test_several_pictures_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counting(monkeypatch)
    plain, packed = pair(8)
    x = torch.randn(5, 8, 6, 7)
    with torch.no_grad():
        for band in (1, 3000, 20_000):  # rows of one picture, pictures one by one, two at a time
            monkeypatch.setattr(bands, "BAND", band)
            torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)
    assert len(asked) == 3


def test_each_weight_has_its_own_kernels() -> None:
    plain, packed = pair(8)
    other, packed_other = pair(8, seed=1)
    x = torch.randn(2, 8, 5, 5)
    first = packed.conv.weight
    with torch.no_grad():
        packed(x)
        packed.conv.weight = packed_other.conv.weight  # as an adapter does for a while
        packed.conv.bias = packed_other.conv.bias
        torch.testing.assert_close(packed(x), other(x), atol=1e-5, rtol=1e-5)
        packed.conv.weight, packed.conv.bias = first, plain.conv.bias
        torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(9, 10), (10, 9)])
def test_sizes_that_halving_had_rounded_up_are_not_doubled(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    asked = counting(monkeypatch)
    plain, packed = pair(8)
    x = torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(packed(x, size), plain(x, size))
    assert not asked


def test_whoever_records_wraps_or_casts_gets_the_layer_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counting(monkeypatch)
    plain, packed = pair(8)
    x = torch.randn(1, 8, 5, 5)
    packed(x.clone().requires_grad_()).sum().backward()
    with torch.no_grad(), torch.autocast("cpu"):
        assert packed(x).dtype == plain(x).dtype
    with torch.no_grad(), Circular("xy"):
        torch.testing.assert_close(packed(x), plain(x))
    heard: list[object] = []
    with torch.no_grad():
        packed.conv.register_forward_hook(lambda *_: heard.append(None))
        packed(x)
    assert not asked and len(heard) == 1


def test_another_library_s_layer_is_asked_nothing() -> None:
    x = torch.randn(1, 8, 5, 5)
    plain, _ = pair(8)
    wrapped = copy.deepcopy(plain)
    wrapped.conv = torch.nn.Sequential(plain.conv)  # type: ignore[assignment]
    with torch.no_grad():
        torch.testing.assert_close(wrapped(x), plain(x))


def test_a_large_kernel_is_not_kept_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LARGEST", 8 * 8 * 9 - 1)
    _, packed = pair(8)
    with torch.no_grad():
        x = torch.randn(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
        assert not bands.doubling_pays(x, packed.conv)
        monkeypatch.setattr(bands, "SMALLEST", 0)  # as for a large map, where it is worth its memory
        assert bands.doubling_pays(x, packed.conv)
