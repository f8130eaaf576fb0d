"""A layer's weights and inputs fitted into 8 bits, from samples of its inputs: which scales lose least.

Shapes: O outputs, I inputs of a weight (O, I, ...), R sampled inputs (R, I).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fromnoise.nn.eight_bit import EightBitConv2d, EightBitLinear, dequantised, eight_bit, quantised
from fromnoise.nn.quantising import TOP, mixed

SHARES = (None, 0.25, 0.5, 0.75)
"""How much of the inputs' spread over channels moves into the weights (SmoothQuant's alpha); None is nothing at all."""

CUTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the sampled inputs' range, and of the weights', that are tried."""

SEARCHED = 256
"""Sampled inputs that shares and cuts are tried on."""

LARGEST = 127
"""The largest whole number that a weight becomes."""


@dataclass(frozen=True)
class Inputs:
    """How a layer's inputs are rounded: the value of a step of each channel (I,), and the number that 0 becomes."""

    scale: Tensor
    zero: int

    def rounded(self, x: Tensor) -> Tensor:
        """What becomes of inputs (R, I)."""
        return ((x / self.scale).round() + self.zero).clamp(0, TOP).sub(self.zero) * self.scale


@torch.no_grad()
def fitted(weight: Tensor, bias: Tensor | None, x: Tensor, *, mixes: bool = False) -> dict[str, Tensor]:
    """The tensors of an 8-bit layer: of its weight, its bias (or None) and sampled inputs x (R, I), to be mixed or not.

    The bias makes up for what rounding adds to the outputs on average (Nagel et al. 2019, section 4.2).
    """
    weight, x = weight.float(), x.float()
    if mixes:
        weight, x = mixed(weight), mixed(x)
    inputs = best_inputs(weight, x)
    scale = _weight_scales(weight, x, inputs.scale)
    numbers = quantised(weight, scale, inputs.scale)
    tensors = {"weight": numbers, "weight_scale": scale, "input_scale": inputs.scale}
    tensors["input_zero"] = torch.tensor([inputs.zero], dtype=torch.uint8)
    if bias is not None:
        meant, means = (_summed(each) for each in (weight, dequantised(numbers, scale, inputs.scale)))
        tensors["bias"] = bias.float() + meant @ x.mean(0) - means @ inputs.rounded(x).mean(0)
    return tensors


def filled(
    layer: nn.Linear | nn.Conv2d, tensors: dict[str, Tensor], *, mixes: bool = False
) -> EightBitConv2d | EightBitLinear:
    """The 8-bit layer with those tensors, its bias in the layer's own number format."""
    made = eight_bit(layer, mixes=mixes)
    own = {key: each.to(layer.weight.dtype) if key == "bias" else each for key, each in tensors.items()}
    made.load_state_dict(own, assign=True)
    return made.eval().requires_grad_(False)  # type: ignore[return-value]


def best_inputs(weight: Tensor, x: Tensor) -> Inputs:
    """Of all shares and cuts the scales with which the layer's outputs are expected to lose least."""
    low, high = x.amin(0), x.amax(0)
    x = x[:: max(1, len(x) // SEARCHED)]
    energy, tried = (weight**2).flatten(2).sum(2).sum(0) if weight.ndim > 2 else (weight**2).sum(0), []
    for share in SHARES:
        smooth = _smooth(weight, x, share)
        lost = _lost_by_weights(weight, x, smooth)
        lowest, highest = min(float((low / smooth).min()), 0.0), max(float((high / smooth).max()), 0.0)
        for cut in CUTS:
            inputs = _ranged(cut * lowest, cut * highest, smooth)
            tried.append((lost + float((energy * ((inputs.rounded(x) - x) ** 2).mean(0)).sum()), inputs))
    return min(tried, key=lambda each: each[0])[1]


def _smooth(weight: Tensor, x: Tensor, share: float | None) -> Tensor:
    """What inputs are divided by: Xiao et al. 2023, eq. 4, with their root mean squares in the place of their peaks.

    Of a few hundred samples the peaks are mostly chance.
    """
    if share is None:
        return torch.ones(x.shape[1])
    peaks = x.square().mean(0).sqrt(), weight.abs().transpose(0, 1).flatten(1).amax(1)
    inputs, weights = (each.clamp(min=1e-3 * float(each.max()) + 1e-12) for each in peaks)
    return inputs**share / weights ** (1 - share)


def _ranged(low: float, high: float, smooth: Tensor) -> Inputs:
    """256 numbers spread over a range of smoothed inputs that holds 0."""
    step = max((high - low) / TOP, 1e-12)
    return Inputs(step * smooth, round(-low / step))


def _lost_by_weights(weight: Tensor, x: Tensor, smooth: Tensor) -> float:
    """The expected square error of the outputs when smoothed weights are rounded to steps of their largest / 127."""
    rest = (1,) * (weight.ndim - 2)
    steps = (weight * smooth.view(1, -1, *rest)).abs().flatten(1).amax(1) / LARGEST
    kernel = weight[0, 0].numel()
    return float((steps**2 / 12).sum() * kernel * ((x / smooth) ** 2).mean(0).sum())


def _weight_scales(weight: Tensor, x: Tensor, input_scale: Tensor) -> Tensor:
    """For each output the step (O,) with which its weights lose least, as the sampled inputs weigh them."""
    rest = (1,) * (weight.ndim - 2)
    scaled = weight * input_scale.view(1, -1, *rest)
    weighs = ((x / input_scale) ** 2).mean(0).view(1, -1, *rest)
    peak = scaled.abs().flatten(1).amax(1).clamp(min=1e-12) / LARGEST
    tried = []
    for cut in CUTS[:4]:
        step = (cut * peak).view(-1, 1, *rest)
        numbers = (scaled / step).round_().clamp_(-LARGEST, LARGEST)
        tried.append((numbers.mul_(step).sub_(scaled).square_().mul_(weighs)).flatten(1).sum(1))
    best = torch.stack(tried).argmin(0)
    return torch.tensor(CUTS)[best] * peak


def _summed(weight: Tensor) -> Tensor:
    """A weight (O, I, ...) summed over its kernel."""
    return weight if weight.ndim == 2 else weight.flatten(2).sum(2)
