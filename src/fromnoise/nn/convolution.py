"""Convolutions whose weights can be laid out, once, as oneDNN computes with them. Shapes: (B, C, h, w)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function

from fromnoise.nn.norm import silu_of


class Conv2d(nn.Conv2d):
    """torch's convolution; packed, it is up to three times as fast where maps are small and weights are many.

    A packed weight is an opaque tensor that takes the dense one's place; `dense` gives that back, bit for bit.
    """

    def forward(self, input: Tensor, plus: Tensor | None = None) -> Tensor:
        """(B, in, h, w) to (B, out, h', w'); `plus`, of the same shape as the result, is added."""
        if self.weight.is_mkldnn and self._may(input):
            return self._packed(input, plus)
        made = self._conv_forward(input, dense(self.weight), self.bias)
        return made if plus is None else made + plus

    def ready(self, norm: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """What it is given in a residual block: SiLU of a map normalised after `shift` (B, C) was added to it."""
        return shifted_silu(norm, x, shift)

    def within(self, rows: Tensor, plus: Tensor | None = None) -> Tensor:
        """Packed: rows of a map (B, in, n + 2, w), the outer two for their neighbours only, to (B, out, n, w)."""
        return self._packed(rows, plus, (0, 1))

    def _may(self, x: Tensor) -> bool:
        """Whether the packed weight may be used: nobody wraps, records or casts what happens."""
        return not (has_torch_function((x,)) or x.requires_grad or torch.is_autocast_enabled(x.device.type))

    def _packed(self, x: Tensor, plus: Tensor | None, padding: tuple[int, int] | None = None) -> Tensor:
        place = padding or self.padding, self.stride, self.dilation, self.groups
        x = x.contiguous(memory_format=torch.channels_last)
        if plus is None:
            return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *place, "none", [], "")
        plus = plus.contiguous(memory_format=torch.channels_last)
        more = "add", None, None, [], None
        return torch.ops.mkldnn._convolution_pointwise.binary(x, plus, self.weight, self.bias, *place, *more)

    def pack(self) -> None:
        """Lay out the weight for oneDNN; nothing happens where it is packed already, learns or isn't on a CPU."""
        weight = self.weight
        if weight.is_mkldnn or weight.requires_grad or weight.device.type != "cpu" or not packs(weight):
            return
        self.weight = nn.Parameter(laid_out(weight, self), requires_grad=False)

    def unpack(self) -> None:
        """Undo `pack`."""
        if self.weight.is_mkldnn:
            self.weight = nn.Parameter(dense(self.weight), requires_grad=False)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: the dense weight."""
        state = self.__dict__.copy()
        if self.weight.is_mkldnn:
            weight = nn.Parameter(dense(self.weight), requires_grad=False)
            state["_parameters"] = {**self._parameters, "weight": weight}
        return state

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """A state dict has the dense weight."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = dense(destination[f"{prefix}weight"])

    def _load_from_state_dict(self, state_dict: Any, *given: Any, **named: Any) -> None:  # type: ignore[override]
        """Dense weights are loaded into a dense one."""
        self.unpack()
        super()._load_from_state_dict(state_dict, *given, **named)


def shifted_silu(norm: nn.Module, x: Tensor, shift: Tensor | None) -> Tensor:
    """SiLU of a map (B, C, h, w) normalised after `shift` (B, C) was added to it."""
    return silu_of(norm, x if shift is None else x + shift[:, :, None, None])


def ready(convolution: nn.Module, norm: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
    """`Conv2d.ready`, also where another library's layer has been wrapped around the convolution, as peft does."""
    if isinstance(convolution, Conv2d):
        return convolution.ready(norm, x, shift)
    return shifted_silu(norm, x, shift)


def packs(weight: Tensor) -> bool:
    """Whether a kernel can be packed and is faster then: one of bfloat16, or one of float32 that is not pointwise.

    A pointwise one of float32 is laid out for maps of another size: 640 to 320 channels at 8 x 8 took 6.4 ms instead of
    0.2 (torch 2.13).
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.bfloat16 or (weight.dtype == torch.float32 and weight.shape[2:].numel() > 1)


def laid_out(weight: Tensor, like: nn.Conv2d) -> Tensor:
    """A weight (out, in, h, w) as oneDNN wants it for a convolution of this padding and stride."""
    place = like.padding, like.stride, like.dilation, like.groups
    return torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.detach().to_mkldnn(), *place)


def dense(weight: Tensor) -> Tensor:
    """The weight as an ordinary tensor, whether it is packed or not."""
    return weight.to_dense() if weight.is_mkldnn else weight


def shape_of(layer: nn.Linear | nn.Conv2d) -> tuple[int, ...]:
    """The shape of a layer's weight, however it is laid out."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size
