"""Convolutions and linears that compute in int8: 8-bit weights, and inputs rounded to 8 bits at every call.

Shapes: O outputs, I inputs, k a kernel's side, (B, C, h, w) maps. A weight is kept as whole numbers q (O, I, ...) with
weight = q * weight_scale[o] / input_scale[i]; an input x as round(x / input_scale[i]) + input_zero, from 0 to 255. So
the sums are whole numbers, and what they miss is rounding only. `input_scale` differs from channel to channel, which
moves the spread of the inputs into the weights (Xiao et al. 2023, "SmoothQuant", eq. 3). A layer that `mixes` keeps
its weight for inputs whose channels are mixed first (`quantising.mixed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function

from fromnoise.nn.convolution import Conv2d, shape_of
from fromnoise.nn.norm import GroupNorm
from fromnoise.nn.quantising import Steps, mixable, mixed

EXACT = ("weight_scale", "input_scale")
"""Tensors that stay in float32 whatever the network's number format is."""

IN_CACHE = 1 << 18
"""Numbers that stay in a core's cache as float32."""

SMALL = 12 * 12
"""Pixels of a small map, its border included."""

ONE, NONE = 1.0, 0
"""oneDNN's scale and zero of inputs: ours are folded into weights and bias."""


class EightBit(nn.Module):
    """What 8-bit layers share; a layer computes in int8 once it is packed, and with its weights' values before."""

    weight: Any
    bias: Any
    weight_scale: Tensor
    input_scale: Tensor
    input_zero: Tensor
    steps: Steps | None = None
    mixes = False

    def hold(self) -> None:
        """Make room for 8-bit weights, their scales (O,) and (I,), and the inputs' zero (1,)."""
        outputs, inputs = self.weight.shape[:2]
        device = self.weight.device
        self.weight = nn.Parameter(torch.empty(self.weight.shape, dtype=torch.int8, device=device), requires_grad=False)
        self.register_buffer("weight_scale", torch.empty(outputs, device=device))
        self.register_buffer("input_scale", torch.empty(inputs, device=device))
        self.register_buffer("input_zero", torch.empty(1, dtype=torch.uint8, device=device))

    def values(self) -> Tensor:
        """The weight as float32."""
        kept = dequantised(whole(self), self.weight_scale, self.input_scale)
        return mixed(kept) if self.mixes else kept

    def pack(self) -> None:
        """Lay the weight out for oneDNN, once; only on a CPU."""
        if self.steps is not None or self.weight.device.type != "cpu":
            return
        numbers, zero = self.weight.detach(), int(self.input_zero)
        missed = row_sums(numbers) * self.weight_scale * zero  # what `zero` adds to every output
        self._offset = -missed if self.bias is None else self.bias.detach().float() - missed
        self._dtype = torch.float32 if self.bias is None else self.bias.dtype
        self._zeros = torch.zeros(len(numbers), dtype=torch.int32)
        self.weight = nn.Parameter(self.laid_out(numbers), requires_grad=False)
        self.steps = Steps(1 / self.input_scale, zero, self.mixes)

    def unpack(self) -> None:
        """Undo `pack`."""
        if self.steps is not None:
            self.weight, self.steps = nn.Parameter(whole(self), requires_grad=False), None

    def release(self) -> None:
        """Let go of the weight, packed or not: what is left is its shape."""
        shape = torch.empty(shape_of(self), dtype=torch.int8, device="meta")  # type: ignore[arg-type]
        self.weight, self.steps = nn.Parameter(shape, requires_grad=False), None

    def laid_out(self, numbers: Tensor) -> Tensor:
        """Whole numbers as oneDNN wants them."""
        raise NotImplementedError

    def _computes(self, x: Tensor) -> bool:
        """True where int8 may: packed, and nobody records or alters what happens."""
        if self.steps is None or has_torch_function((x,)) or (torch.is_grad_enabled() and x.requires_grad):
            return False
        return not torch.compiler.is_compiling() and not torch.jit.is_tracing()

    def takes_numbers(self, x: Tensor) -> bool:
        """True where the layer may be given 8-bit numbers for `x`: nothing beside it wants to see the values."""
        watched = self._forward_hooks or self._forward_pre_hooks
        return self._computes(x) and "forward" not in self.__dict__ and not watched


class EightBitConv2d(EightBit, Conv2d):
    """A convolution, padded with 0, in int8.

    oneDNN lays weights out for large maps unless it is told the map's size, and would do it anew at every call for a
    small one: the first small map that comes settles it.
    """

    laid_out_for: torch.Size | None = None

    def forward(self, input: Tensor, plus: Tensor | None = None) -> Tensor:
        """(B, in, h, w), or what `ready` made of it, to (B, out, h', w'); `plus` is added."""
        if input.dtype == torch.uint8:
            return self._summed(input, plus, self._dtype)
        if not self._computes(input):
            made = self._conv_forward(input, self.values().to(input.dtype), self.bias)
            return made if plus is None else made + plus
        assert self.steps is not None
        return self._summed(self.steps.of_map(input, self.padding[0]), plus, input.dtype)  # type: ignore[arg-type]

    def ready(self, norm: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """SiLU of a map normalised after (B, C) was added to it, as the convolution takes it: here in 8 bits."""
        if not self.takes_numbers(x) or self.steps is None or not isinstance(norm, GroupNorm):
            return super().ready(norm, x, shift)
        return self.steps.of_normalised(norm, x, shift, int(self.padding[0]))

    def laid_out(self, numbers: Tensor) -> Tensor:
        """For oneDNN; what borders need is added to the map before."""
        place = self.stride, (0, 0), self.dilation, self.groups
        return torch.ops.onednn.qconv_prepack(numbers, self.weight_scale, ONE, NONE, *place, self.laid_out_for)

    def _summed(self, numbers: Tensor, plus: Tensor | None, dtype: torch.dtype) -> Tensor:
        if self.laid_out_for is None and numbers.shape[2] * numbers.shape[3] <= SMALL:
            self.laid_out_for = numbers.shape
            self.weight = nn.Parameter(self.laid_out(whole(self)), requires_grad=False)
        place = self.stride, (0, 0), self.dilation, self.groups
        given = numbers, ONE, NONE, self.weight, self.weight_scale, self._zeros
        if plus is None:
            made = ONE, NONE, dtype, "none", [], ""
            return torch.ops.onednn.qconv2d_pointwise(*given, self._offset, *place, *made)
        plus = plus.to(dtype, memory_format=torch.channels_last, copy=True)  # the sum is written over it
        made = ONE, NONE, dtype, ONE, NONE, "sum", 1.0, "none", [], ""
        return torch.ops.onednn.qconv2d_pointwise.binary(*given, plus, self._offset, *place, *made)


class EightBitLinear(EightBit, nn.Linear):
    """A linear layer in int8."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if not self._computes(input):
            return F.linear(input, self.values().to(input.dtype), self.bias)
        assert self.steps is not None
        return self.of_numbers(self.steps.of(input), input.dtype)

    def of_numbers(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """The same of inputs that are 8-bit numbers already."""
        given = numbers, ONE, NONE, self.weight, self.weight_scale, self._zeros, self._offset
        return torch.ops.onednn.qlinear_pointwise(*given, ONE, NONE, dtype, "none", [], "")

    def laid_out(self, numbers: Tensor) -> Tensor:
        """For oneDNN."""
        return torch.ops.onednn.qlinear_prepack(numbers.contiguous(), None)


def row_sums(numbers: Tensor) -> Tensor:
    """Sums (O,) of 8-bit numbers (O, ...), exact up to 2^24; float32 chunks that stay in a cache take a twelfth."""
    rows = numbers.flatten(1)
    return torch.cat([each.float().sum(1) for each in rows.split(max(IN_CACHE // rows.shape[1], 1))])


def whole(layer: EightBit) -> Tensor:
    """A layer's weight as whole numbers (O, I, ...), packed or not."""
    if layer.steps is None:
        return layer.weight.detach()
    dense = layer.weight.to_dense()
    return dense.T.contiguous() if isinstance(layer, nn.Linear) else dense


def dequantised(numbers: Tensor, weight_scale: Tensor, input_scale: Tensor) -> Tensor:
    """Whole numbers (O, I, ...) as the weights that they stand for, in float32."""
    rest = (1,) * (numbers.ndim - 2)
    return numbers.float() * weight_scale.view(-1, 1, *rest) / input_scale.view(1, -1, *rest)


@torch.no_grad()
def quantised(weight: Tensor, weight_scale: Tensor, input_scale: Tensor) -> Tensor:
    """The whole numbers from -127 to 127 nearest to weights (O, I, ...)."""
    rest = (1,) * (weight.ndim - 2)
    scaled = weight.float() * input_scale.view(1, -1, *rest) / weight_scale.view(-1, 1, *rest)
    return scaled.round_().clamp_(-127, 127).to(torch.int8)


def eight_bit(layer: nn.Linear | nn.Conv2d, *, mixes: bool = False) -> EightBitConv2d | EightBitLinear:
    """An empty 8-bit layer of the same sizes, its bias's room included."""
    has_bias, like = layer.bias is not None, {"device": layer.weight.device}
    if isinstance(layer, nn.Linear):
        made: EightBitConv2d | EightBitLinear = EightBitLinear(layer.in_features, layer.out_features, has_bias, **like)
    else:
        place = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, has_bias
        made = EightBitConv2d(layer.in_channels, layer.out_channels, *place, **like)  # type: ignore[arg-type]
    made.hold()
    made.mixes = mixes
    return made


def replace_layers(module: nn.Module, mixing: Mapping[str, bool]) -> None:
    """Put empty 8-bit layers in the place of a module's layers of these names, with their inputs mixed or not.

    KeyError for what is no such layer, or can't have its inputs mixed.
    """
    for name, mixes in mixing.items():
        layer = module.get_submodule(name) if name in dict(module.named_modules()) else None
        if not isinstance(layer, nn.Linear | nn.Conv2d) or (mixes and not may_mix(layer)):
            raise KeyError(name)
        module.set_submodule(name, eight_bit(layer, mixes=mixes))


def may_mix(layer: nn.Module) -> bool:
    """True for a linear layer whose inputs can be mixed."""
    return isinstance(layer, nn.Linear) and mixable(layer.in_features)


def plain_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Put ordinary layers, with the weights that the 8-bit ones stand for, in the place of all 8-bit layers."""
    for name, layer in [*module.named_modules()]:
        if not isinstance(layer, EightBit):
            continue
        with torch.device("meta"):
            if isinstance(layer, EightBitLinear):
                plain: Any = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
            else:
                assert isinstance(layer, EightBitConv2d)
                place = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups
                plain = Conv2d(layer.in_channels, layer.out_channels, *place, layer.bias is not None)  # type: ignore[arg-type]
        plain.weight, plain.bias = nn.Parameter(layer.values().to(dtype), requires_grad=False), layer.bias
        module.set_submodule(name, plain.train(layer.training))


def eight_bit_layers(module: nn.Module) -> Iterator[EightBitConv2d | EightBitLinear]:
    """A module's 8-bit layers."""
    return (each for each in module.modules() if isinstance(each, EightBitConv2d | EightBitLinear))


@cache
def supported() -> bool:
    """True where the CPU adds products of 8-bit numbers without overflow: AVX512-VNNI or AMX."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()
