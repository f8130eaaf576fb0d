"""A frozen layer while something learns beside or behind it, on a CPU, with a gradient written by hand.

Autocast would turn the frozen weights into bfloat16 at every call, and oneDNN would lay them out anew for every
product. Here both happen once: a convolution's gradient by its input is a convolution with the turned kernel, packed as
well. Without autocast all is float32, and kernels aren't turned, as that gains nothing there. The low-rank path (Hu et
al. 2021) is added in the output's own memory. Shapes: N rows (pixels or tokens), I and O the layer's inputs and
outputs, r the rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fromnoise.adapters.factors import Layer, Lora
from fromnoise.adapters.patches import Beside, Forward, Weighed
from fromnoise.nn.convolution import dense, laid_out, packs
from fromnoise.nn.eight_bit import EightBit

FEW = 2**21
"""Numbers of a kernel up to which it is packed in float32: beside those of a large network a copy would not fit."""


class Frozen(Protocol):
    """A layer's weights as they are computed with: (N, I) to (N, O), or maps (B, I, h, w) to (B, O, h, w)."""

    def arranged(self, x: Tensor) -> Tensor:
        """An input in the format and layout that the other methods take."""
        ...

    def out(self, x: Tensor) -> Tensor:
        """What the layer says."""
        ...

    def back(self, slope: Tensor, x: Tensor) -> Tensor:
        """The gradient by the input x, from that by the output."""
        ...

    def inner(self, x: Tensor, down: Tensor) -> Tensor:
        """The r numbers of each row that `down` makes of x."""
        ...

    def inner_back(self, slope: Tensor, x: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients by x and by `down`, from that by `inner`."""
        ...


@dataclass(frozen=True)
class FrozenLinear:
    """A linear layer's weight (O, I) and bias."""

    weight: Tensor
    bias: Tensor | None

    def arranged(self, x: Tensor) -> Tensor:
        """Rows."""
        return x.to(self.weight.dtype).reshape(-1, x.shape[-1])

    def out(self, x: Tensor) -> Tensor:
        """(N, I) to (N, O)."""
        return F.linear(x, self.weight, self.bias)

    def back(self, slope: Tensor, x: Tensor) -> Tensor:
        """(N, O) to (N, I)."""
        return slope @ self.weight

    def inner(self, x: Tensor, down: Tensor) -> Tensor:
        """(N, r)."""
        return F.linear(x, down)

    def inner_back(self, slope: Tensor, x: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        """(N, I) and (r, I)."""
        return slope @ down, slope.t() @ x


class FrozenConvolution:
    """A convolution's kernel, packed for the output and, in bfloat16, turned for the input's gradient."""

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype) -> None:
        self.layer = layer
        self.weight = dense(layer.weight).detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.place: Any = layer.padding, layer.stride, layer.dilation, layer.groups
        low = dtype != torch.float32
        gains = layer.weight.dtype == torch.float32 and packs(self.weight) and (low or self.weight.numel() <= FEW)
        turns = gains and low and _turns(layer)
        self.packed = laid_out(self.weight, layer) if gains else None
        self.turned = laid_out(_turned(self.weight), layer) if turns else None

    def arranged(self, x: Tensor) -> Tensor:
        """Channels last."""
        return x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)

    def out(self, x: Tensor) -> Tensor:
        """(B, I, h, w) to (B, O, h', w')."""
        if self.packed is not None:
            return self._pointwise(x, self.packed, self.bias)
        return F.conv2d(x, self.weight, self.bias, self.layer.stride, self.place[0], self.layer.dilation)

    def back(self, slope: Tensor, x: Tensor) -> Tensor:
        """(B, O, h', w') to (B, I, h, w)."""
        if self.turned is not None:
            return self._pointwise(slope, self.turned, None)
        return self._gradients(slope, x, self.weight, by_weight=False)[0]

    def inner(self, x: Tensor, down: Tensor) -> Tensor:
        """(B, r, h', w')."""
        return F.conv2d(x, down, None, self.layer.stride, self.place[0], self.layer.dilation)

    def inner_back(self, slope: Tensor, x: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        """(B, I, h, w) and (r, I, k, k)."""
        by_x, by_down, _ = self._gradients(slope, x, down, by_weight=True)
        return by_x, by_down

    def _pointwise(self, x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, packed, bias, *self.place, "none", [], "")

    def _gradients(self, slope: Tensor, x: Tensor, weight: Tensor, *, by_weight: bool) -> Any:
        padding, stride, dilation, groups = self.place
        asked = True, by_weight, False
        more = stride, padding, dilation, False, (0, 0), groups, asked
        return torch.ops.aten.convolution_backward(slope, x, weight, None, *more)


class _Aside(torch.autograd.Function):
    """The layer plus up (O, r) on `inner`; the gradients by the input and both factors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, scale: float, frozen: Frozen) -> Tensor:
        ctx.frozen, ctx.scale = frozen, scale
        y = frozen.out(x)
        low_down, low_up = down.to(y.dtype), (up if scale == 1 else up * scale).to(y.dtype)
        inner = frozen.inner(x, low_down)
        _rows(y).addmm_(_rows(inner), low_up.t())
        ctx.save_for_backward(x, inner, low_down, low_up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, inner, down, up = ctx.saved_tensors
        slope = ctx.frozen.arranged(slopes[0])
        by_inner = torch.empty_like(inner)
        torch.mm(_rows(slope), up, out=_rows(by_inner))
        by_up = (_rows(slope).t() @ _rows(inner)).float()
        by_x, by_down = ctx.frozen.inner_back(by_inner, x, down)
        if ctx.needs_input_grad[0]:
            by_x += ctx.frozen.back(slope, x)
        return by_x, by_down.float(), by_up if ctx.scale == 1 else by_up * ctx.scale, None, None


class _Alone(torch.autograd.Function):
    """The layer as it is, with the gradient by its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: Frozen) -> Tensor:
        ctx.frozen = frozen
        ctx.save_for_backward(x)
        return frozen.out(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return ctx.frozen.back(ctx.frozen.arranged(slopes[0]), x), None


class Learning(Beside):
    """A frozen layer that factors learn beside, or that only hands gradients on.

    It acts as `Beside` does, but on a CPU, in bfloat16's autocast or float32, and for no more than one plain LoRA.
    """

    def __init__(self, layer: Layer, deltas: Weighed) -> None:
        super().__init__(layer, deltas)
        self._frozen: tuple[Tensor, torch.dtype, Frozen] | None = None

    def around(self, plain: Forward) -> Forward:
        """The fast path where it is one."""
        slow = super().around(plain)
        return lambda x, **more: self._fast(x, **more) if self._may(x) else slow(x, **more)

    def _may(self, x: Tensor) -> bool:
        if self.layer.weight.requires_grad or x.device.type != "cpu" or isinstance(self.layer, EightBit):
            return False
        if not (_autocasts_to_bfloat16() or self._is_float32(x)):
            return False
        return not self.deltas or (len(self.deltas) == 1 and self._plain(self.deltas[0][1].factors))

    def _is_float32(self, x: Tensor) -> bool:
        formats = {x.dtype, self.layer.weight.dtype}
        return formats == {torch.float32} and not torch.is_autocast_enabled("cpu")

    def _plain(self, factors: Any) -> bool:
        """One LoRA without a core and, while it learns, without dropout."""
        drops = getattr(factors, "dropout", 0.0) > 0 and torch.is_grad_enabled()
        return isinstance(factors, Lora) and factors.mid is None and factors.up.ndim == 2 and not drops

    def _fast(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        frozen = self._kept(torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32)
        with torch.autocast("cpu", enabled=False):
            made = self._made(frozen.arranged(x), frozen)
        made = made.unflatten(0, x.shape[:-1]) if isinstance(self.layer, nn.Linear) else made
        return made if plus is None else made + plus

    def _made(self, x: Tensor, frozen: Frozen) -> Tensor:
        if not self.deltas:
            return _Alone.apply(x, frozen)  # pyright: ignore[reportReturnType]
        strength, place = self.deltas[0]
        factors: Any = place.factors
        return _Aside.apply(x, factors.down, factors.up, strength * factors.scale, frozen)  # pyright: ignore[reportReturnType]

    def _kept(self, dtype: torch.dtype) -> Frozen:
        """The weights in that format, made when they are first needed, and again when the layer has got others."""
        if self._frozen is None or self._frozen[0] is not self.layer.weight or self._frozen[1] != dtype:
            self._frozen = self.layer.weight, dtype, _frozen(self.layer, dtype)
        return self._frozen[2]


def _autocasts_to_bfloat16() -> bool:
    low = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return low and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.no_grad()
def _frozen(layer: Layer, dtype: torch.dtype) -> Frozen:
    if isinstance(layer, nn.Conv2d):
        return FrozenConvolution(layer, dtype)
    return FrozenLinear(layer.weight.detach().to(dtype), None if layer.bias is None else layer.bias.detach().to(dtype))


def _rows(x: Tensor) -> Tensor:
    """A channels-last map as rows of pixels, in its own memory; rows as they are."""
    return x if x.ndim == 2 else x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def _turns(layer: nn.Conv2d) -> bool:
    """Whether the gradient by the input is a convolution with the same padding."""
    same = all(2 * padding == kernel - 1 for padding, kernel in zip(layer.padding, layer.kernel_size, strict=True))
    return same and layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1


def _turned(weight: Tensor) -> Tensor:
    return weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
