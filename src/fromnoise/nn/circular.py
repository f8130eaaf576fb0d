"""Convolutions that wrap around, so that a picture's opposite edges meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Circular(TorchFunctionMode):
    """Inside this block every padded convolution of this thread pads with the opposite edge.

    `axes` is "x" (left and right), "y" (top and bottom) or "xy"; along another axis it pads with zeros as ever. No
    module is touched, so other threads that use the same ones notice nothing.
    """

    def __init__(self, axes: str) -> None:
        super().__init__()
        self.axes = axes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Any torch function as it is, but for convolutions."""
        return self._convolve(*args, **(kwargs or {})) if func is F.conv2d else func(*args, **(kwargs or {}))

    def _convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        high, wide = padding if isinstance(padding, Sequence) else (padding, padding)
        wraps_x, wraps_y = "x" in self.axes, "y" in self.axes
        wrapped = wrap(x, wide * wraps_x, high * wraps_y)
        zeros = (high * (not wraps_y), wide * (not wraps_x))
        return torch.conv2d(wrapped, weight, bias, stride, zeros, dilation, groups)


def circularly(call: Callable[..., Any], axes: str) -> Callable[..., Any]:
    """The same call with wrapping convolutions inside."""

    def wrapped(*args: Any) -> Any:
        with Circular(axes):
            return call(*args)

    return wrapped


def wrap(x: Tensor, wide: int, high: int) -> Tensor:
    """A map (B, C, h, w) with so many columns and rows of its opposite edges around it."""
    return F.pad(x, (wide, wide, high, high), mode="circular") if wide or high else x
