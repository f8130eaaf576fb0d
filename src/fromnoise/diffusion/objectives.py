"""What a denoiser is trained on, with the scalings that sampling uses."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fromnoise.diffusion.denoiser import scalings


class Example(NamedTuple):
    """A training example: the network's scaled input, what it should answer, and how much the answer counts."""

    input: Tensor
    target: Tensor
    weight: Tensor


def example(
    clean: Tensor, noise: Tensor, sigma: Tensor, prediction: str, gamma: float | None = 5.0, power: float = 1.0
) -> Example:
    """Latents (B, C, h, w) made noisy at levels (B,), and the network's target: EDM's eq. 8 solved for F.

    `gamma` weighs by min(SNR, gamma) on the predicted picture (Hang et al. 2023, "Min-SNR", eq. 7), raised to `power`;
    None or 0 weighs all alike in the network's own space. The weight is (B,).
    """
    scale = scalings(prediction, sigma)
    noisy = clean + sigma[:, None, None, None] * noise
    target = (clean - scale.skip * noisy) / scale.out
    return Example(scale.input * noisy, target, answer_weight(sigma, prediction, gamma, power))


def answer_weight(sigma: Tensor, prediction: str, gamma: float | None, power: float = 1.0) -> Tensor:
    """How much an answer at noise levels (B,) counts, (B,): `gamma` and `power` are those of `example`."""
    if not gamma:
        return sigma.new_ones(sigma.shape)
    return ((sigma**-2).clamp(max=gamma) * scalings(prediction, sigma).out[:, 0, 0, 0] ** 2) ** power


def weighted_error(answer: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error, weighted per picture: a scalar."""
    return (weight * (answer.float() - target).square().flatten(1).mean(1)).mean()
