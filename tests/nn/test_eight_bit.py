"""8-bit layers against float arithmetic on the same whole numbers, wherever the CPU computes in int8."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fromnoise.nn import attention, quantising
from fromnoise.nn.attention import FeedForward
from fromnoise.nn.circular import Circular
from fromnoise.nn.convolution import Conv2d
from fromnoise.nn.eight_bit import (
    EightBit,
    dequantised,
    plain_layers,
    quantised,
    replace_layers,
    row_sums,
    supported,
    whole,
)
from fromnoise.nn.fitting import filled, fitted
from fromnoise.nn.norm import GroupNorm
from fromnoise.nn.quantising import Steps
from fromnoise.nn.resnet import ResnetBlock

needs_int8 = pytest.mark.skipif(not supported(), reason="needs a CPU with AVX512-VNNI or AMX")


def put(layer: nn.Linear | nn.Conv2d, x: Tensor) -> EightBit:
    """The layer in 8 bits, fitted to inputs x and packed."""
    rows = x if isinstance(layer, nn.Linear) else x.permute(0, 2, 3, 1)
    made = filled(layer, fitted(layer.weight, layer.bias, rows.reshape(-1, rows.shape[-1])))
    made.pack()
    return made


def rounded(layer: EightBit, x: Tensor, dim: int) -> Tensor:
    """The inputs that a layer's 8-bit ones stand for."""
    scale = layer.input_scale.view(-1, *(1,) * (-dim - 1))
    zero = int(layer.input_zero)
    return ((x.float() / scale).round() + zero).clamp(0, 255).sub(zero) * scale


@given(seed=st.integers(0, 1000), kernel=st.sampled_from((0, 1, 3)), spread=st.sampled_from((1e-3, 1.0, 100.0)))
@settings(max_examples=50, deadline=None)
def test_weights_come_back_within_half_a_step(seed: int, kernel: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (7, 5) if not kernel else (7, 5, kernel, kernel)
    weight = torch.randn(shape, generator=generator) * spread
    inputs = torch.rand(5, generator=generator) + 0.01
    rest = (1,) * (len(shape) - 2)
    step = (weight * inputs.view(1, -1, *rest)).flatten(1).abs().amax(1) / 127
    back = dequantised(quantised(weight, step, inputs), step, inputs)
    half = step.view(-1, 1, *rest) / inputs.view(1, -1, *rest) / 2
    assert ((back - weight).abs() <= half * 1.001).all()
    assert not torch.equal(back, weight)


@needs_int8
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2}, {}])
def test_a_convolution_is_exact_in_its_whole_numbers(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer, x = Conv2d(24, 40, 3 if options else 1, **options).requires_grad_(False), torch.randn(2, 24, 9, 7) + 0.5
    made = put(layer, x)
    exact = F.conv2d(rounded(made, x, -3), made.values(), made.bias, layer.stride, layer.padding)
    plus = torch.randn_like(exact)
    before = plus.clone()
    with torch.no_grad():
        assert (made(x) - exact).abs().max() <= 1e-5 * exact.abs().max()
        assert (made(x, plus=plus) - exact - before).abs().max() <= 1e-5 * exact.abs().max()
    assert torch.equal(plus, before)
    assert 0 < (exact - layer(x)).norm() < 0.05 * exact.norm()


@needs_int8
def test_a_linear_layer_is_exact_in_its_whole_numbers_and_comes_back_bit_for_bit() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40).requires_grad_(False), torch.randn(2, 50, 24) * torch.rand(24).mul(9).exp()
    made = put(layer, x)
    numbers = whole(made)
    exact = F.linear(rounded(made, x, -1), made.values(), made.bias)
    with torch.no_grad():
        assert (made(x) - exact).abs().max() <= 1e-5 * exact.abs().max()
    assert (exact - layer(x)).norm() < 0.02 * exact.norm()
    made.unpack()
    assert torch.equal(made.weight, numbers) and numbers.dtype == torch.int8
    plain = nn.Sequential(made)
    plain_layers(plain, torch.float32)
    assert type(plain[0]) is nn.Linear and torch.equal(plain[0].weight, made.values())


@given(seed=st.integers(0, 1000), blocks=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_mixing_keeps_lengths_and_undoes_itself(seed: int, blocks: int) -> None:
    x = torch.randn(3, 256 * blocks, generator=torch.Generator().manual_seed(seed))
    made = quantising.mixed(x)
    assert torch.allclose(made.norm(dim=1), x.norm(dim=1), rtol=1e-5)
    assert torch.allclose(quantising.mixed(made), x, atol=1e-5)
    one = quantising.mixed(torch.eye(256)[5])
    assert torch.equal(one.abs().nonzero().flatten(), torch.arange(5, 256, 16)) and one.abs().max() == 0.25


@needs_int8
def test_mixed_inputs_lose_less_where_few_are_large() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(512, 40).requires_grad_(False), torch.randn(2000, 512) * F.gelu(torch.randn(2000, 512))
    plain, mixing = (
        filled(layer, fitted(layer.weight, layer.bias, x, mixes=mixes), mixes=mixes) for mixes in (False, True)
    )
    values = mixing.values()
    assert (values - layer.weight).norm() < 0.02 * layer.weight.norm()
    with torch.no_grad():
        for made in (plain, mixing):
            made.pack()
        lost = [float((made(x) - layer(x)).norm() / layer(x).norm()) for made in (plain, mixing)]
    assert lost[1] < 0.6 * lost[0]
    whole_again = nn.Sequential(mixing)
    plain_layers(whole_again, torch.float32)
    assert torch.equal(whole_again[0].weight, values)


def test_the_spread_of_the_inputs_moves_into_the_weights_where_it_pays() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(32, 64).requires_grad_(False), torch.randn(500, 32)
    x[:, 3] *= 100  # one loud channel would take all the steps of a common scale
    scale = fitted(layer.weight, layer.bias, x)["input_scale"]
    assert scale[3] > 4 * scale[:3].max()


@needs_int8
def test_the_bias_makes_up_for_what_rounding_adds() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 8).requires_grad_(False), torch.rand(4000, 16)
    with torch.no_grad():
        off = (put(layer, x)(x) - layer(x)).mean(0)
        without = fitted(layer.weight, layer.bias, x) | {"bias": layer.bias}
        uncorrected = filled(layer, without)
        uncorrected.pack()
        assert off.abs().max() < 1e-5 < (uncorrected(x) - layer(x)).mean(0).abs().max()


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernels", [True, False])
def test_a_residual_block_and_a_feed_forward_in_8_bits(
    dtype: torch.dtype, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(quantising, "_kernels", lambda: None)
    monkeypatch.setattr(attention, "TOKENS", 32)
    torch.manual_seed(0)
    block, forward = ResnetBlock(32, 64, 8, 1e-5, 16).to(dtype), FeedForward(32).to(dtype)
    x, time, tokens = (torch.randn(each).to(dtype) for each in ((2, 32, 9, 7), (2, 16), (2, 50, 32)))
    with torch.no_grad():
        exact, last = (block(x, time), forward(tokens)), forward.net[2]
        for module, *given in ((block, x, time), (forward, tokens)):
            names = ("conv1", "conv2") if module is block else ("net.0.proj", "net.2")
            seen: dict[str, Tensor] = {}
            for name in names:
                keep = lambda _, given, __, name=name, seen=seen: seen.update({name: given[0]})  # noqa: E731
                module.get_submodule(name).register_forward_hook(keep)
            module(*given)
            for name in names:
                layer = module.get_submodule(name)
                layer._forward_hooks.clear()
                module.set_submodule(name, put(layer, seen[name]))
        half = FeedForward(32).to(dtype)
        half.net[0].proj, half.net[2] = forward.net[0].proj, last
        for one, other in zip((block(x, time), forward(tokens), half(tokens)), (*exact, exact[1]), strict=True):
            assert one.dtype == dtype
            assert 1e-4 * other.norm() < (one.float() - other.float()).norm() < 0.03 * other.norm()


@pytest.mark.skipif(not quantising.available(), reason="needs AVX-512 and a C++ compiler")
@given(
    channels=st.sampled_from((8, 24, 40, 256, 320)),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pad=st.integers(0, 2),
    zero=st.integers(0, 255),
    shifted=st.booleans(),
    dtype=st.sampled_from((torch.bfloat16, torch.float32)),
)
@settings(max_examples=80, deadline=None)
def test_the_kernels_round_as_torch_does(
    channels: int, height: int, width: int, pad: int, zero: int, shifted: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(channels + height)
    norm = GroupNorm(8, channels)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x, shift = torch.randn(2, channels, height, width) * 3 + 1, torch.randn(2, channels) if shifted else None
    x[0, 0, 0, 0] = 1000.0
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    steps, gated = Steps(torch.rand(channels) * 30 + 1, zero), torch.randn(5, 2 * channels).to(dtype)
    mixing = Steps(steps.scale, zero, quantising.mixable(channels))

    def made(x: Tensor, gated: Tensor) -> list[Tensor]:
        with torch.no_grad():
            maps, tokens = steps.of_map(x, pad), steps.of(x.permute(0, 2, 3, 1))
            return [
                maps,
                tokens,
                steps.of_normalised(norm, x, shift, pad),
                *(s.of_gated(gated) for s in (steps, mixing)),
            ]

    mine, plain = made(x, gated), quantising.gated(gated).float()
    with mock.patch.object(quantising, "_kernels", return_value=None):
        theirs, exact = made(x.float(), gated.float()), quantising.gated(gated.float())
    assert (plain - exact).abs().max() <= (0.004 if dtype == torch.bfloat16 else 0) * exact.abs().max()
    assert torch.equal(theirs[-1], theirs[-2]) is not mixing.mixes
    for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == torch.uint8 and one.shape == other.shape
        assert (one.int() - other.int()).abs().max() <= 1
        assert (one != other).float().mean() < 0.02


@needs_int8
def test_what_records_or_wraps_gets_the_weights_values() -> None:
    torch.manual_seed(0)
    layer, x = Conv2d(16, 8, 3, padding=1).requires_grad_(False), torch.randn(1, 16, 6, 6)
    made = put(layer, x)
    meant = Conv2d(16, 8, 3, padding=1).requires_grad_(False)
    meant.weight, meant.bias = nn.Parameter(made.values()), made.bias
    with Circular("xy"):
        assert torch.equal(made(x), meant(x))
    x.requires_grad_()
    made(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    norm = GroupNorm(4, 16).requires_grad_(False)
    with torch.no_grad():
        assert made.ready(norm, x.detach()).dtype == torch.uint8
        made.forward = made.forward  # as an adapter beside it does
        assert made.ready(norm, x.detach()).dtype == torch.float32


def test_names_of_no_layer_are_refused() -> None:
    with pytest.raises(KeyError):
        replace_layers(nn.Sequential(nn.Linear(2, 2)), {"1": False})
    with pytest.raises(KeyError):
        replace_layers(nn.Sequential(nn.Linear(128, 2)), {"0": True})


@needs_int8
def test_small_maps_settle_how_a_weight_is_laid_out_and_change_no_answer() -> None:
    torch.manual_seed(0)
    layer, large, small = (
        Conv2d(32, 32, 3, padding=1).requires_grad_(False),
        *(torch.randn(1, 32, n, n) for n in (20, 8)),
    )
    made = put(layer, large)
    numbers = whole(made)
    with torch.no_grad():
        before = made(large)
        assert made.laid_out_for is None
        exact = F.conv2d(rounded(made, small, -3), made.values(), made.bias, padding=1)
        assert (made(small) - exact).abs().max() <= 1e-5 * exact.abs().max()
        assert made.laid_out_for is not None and torch.equal(made(large), before)
    assert torch.equal(whole(made), numbers)


@pytest.mark.parametrize("shape", [(3, 5), (700, 640, 3, 3), (2, 300_000)])
def test_sums_of_rows_are_exact(shape: tuple[int, ...]) -> None:
    numbers = torch.randint(-127, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(row_sums(numbers).long(), numbers.flatten(1).sum(1))
