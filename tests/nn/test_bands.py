"""Large maps band by band against the same layers at once."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fromnoise.engines.eager import pack, use_kernels
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.nn import activation, bands
from fromnoise.nn.circular import Circular
from fromnoise.nn.resnet import ResnetBlock, Upsample

pytestmark = pytest.mark.skipif(not activation.available(), reason="needs AVX512-BF16 and a C++ compiler")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything goes in bands of at least two rows; which bands were asked for."""
    monkeypatch.setattr(bands, "SMALLEST", 0)
    monkeypatch.setattr(bands, "BAND", 4000)
    asked: list[str] = []

    def counting(name: str, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **more: (asked.append(name), call(*args, **more))[1]

    for name in ("convolve", "convolve_over", "convolve_doubled"):
        monkeypatch.setattr(bands, name, counting(name, getattr(bands, name)))
    return asked


def halves(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The module in float32 with bfloat16's values, all random, and in bfloat16, packed."""
    torch.manual_seed(0)
    for each in module.parameters():
        nn.init.normal_(each, std=each[0].numel() ** -0.5 if each.ndim > 1 else 1.0)
    half = module.bfloat16().eval().requires_grad_(False)
    exact = copy.deepcopy(half).float()
    pack(half)
    use_kernels(half)
    return exact, half


def error(one: Tensor, exact: Tensor) -> float:
    return float((one - exact).norm() / exact.norm())


@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 33),
    width=st.integers(1, 33),
    before=st.sampled_from((16, 32)),
    after=st.sampled_from((16, 32)),
    time=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_a_residual_block(batch: int, height: int, width: int, before: int, after: int, time: bool) -> None:
    smallest, bands.SMALLEST, band, bands.BAND = bands.SMALLEST, 0, bands.BAND, 4000
    try:
        exact, half = halves(ResnetBlock(before, after, 4, 1e-6, 12 if time else None))
        x = torch.randn(batch, before, height, width).bfloat16().contiguous(memory_format=torch.channels_last)
        when = (torch.randn(batch, 12).bfloat16(),) if time else ()
        kept = x.clone()
        with torch.no_grad():
            assert bands.pay(x, half.norm1, half.conv1, half.norm2, half.conv2)
            assert error(half(x, *when), exact(x.float(), *(each.float() for each in when))) < 0.01
        assert torch.equal(x, kept), "the input belongs to the caller"
    finally:
        bands.SMALLEST, bands.BAND = smallest, band


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 9), (40, 1)])
def test_doubling(counted: list[str], size: tuple[int, int]) -> None:
    exact, half = halves(Upsample(16))
    x = torch.randn(2, 16, *size).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert error(half(x), exact(x.float())) < 0.01
    assert counted == ["convolve_doubled"]


def test_a_doubled_map_follows_its_weights(counted: list[str]) -> None:
    _, half = halves(Upsample(16))
    x = torch.randn(1, 16, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        before = half(x)
        half.conv.unpack()
        half.conv.weight *= 2
        half.conv.bias *= 2
        half.conv.pack()
        assert error(half(x), 2 * before.float()) < 0.01
    assert counted == ["convolve_doubled"] * 2


def test_a_whole_decoder(counted: list[str]) -> None:
    config = AutoencoderConfig(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4)
    exact, half = halves(Autoencoder(config))
    latents = torch.randn(1, 4, 12, 10)
    with torch.no_grad():
        assert error(half.decode(latents.bfloat16()), exact.decode(latents.bfloat16().float())) < 0.03
        assert set(counted) == {"convolve", "convolve_over", "convolve_doubled"}
        counted.clear()
        half.decoder.mid_block.resnets[0].conv1.register_forward_hook(lambda *_: None)
        half.decode(latents.bfloat16())
    assert "convolve_over" in counted and len(counted) > 3


def test_whole_maps_where_edges_meet(counted: list[str]) -> None:
    _, half = halves(ResnetBlock(16, 16, 4, 1e-6))
    x = torch.randn(1, 16, 6, 6).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), Circular("xy"):
        half(x)
    assert not counted


def test_whole_maps_where_gradients_are_asked_for(counted: list[str]) -> None:
    _, half = halves(ResnetBlock(16, 16, 4, 1e-6))
    x = torch.randn(1, 16, 6, 6).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    half(x).square().sum().backward()
    assert not counted and x.grad is not None and x.grad.abs().sum() > 0


def test_nearest_sizes_that_halving_rounded_up_stay_whole(counted: list[str]) -> None:
    exact, half = halves(Upsample(16))
    x = torch.randn(1, 16, 3, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert error(half(x, size=(5, 7)), exact(x.float(), size=(5, 7))) < 0.01
        assert half(x, size=(5, 7)).shape == F.interpolate(x, size=(5, 7)).shape
    assert not counted
