"""From a network's answer to a denoised picture: the scalings that sampling and training share.

A `Denoiser` takes noisy latents x (B, C, h, w) at noise levels sigma (B,) and gives the clean latents it expects,
the convention of k-diffusion and of Karras et al. 2022 (EDM), eq. 7: D(x) = c_skip x + c_out F(c_in x).
Noisy means x = clean + sigma * noise with unit normal noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from fromnoise.diffusion.schedules import NoiseSchedule
from fromnoise.runtime.errors import FromnoiseError

Denoiser = Callable[[Tensor, Tensor], Tensor]
Predict = Callable[[Tensor, Tensor], Tensor]
"""A network: scaled latents (B, C, h, w) and timesteps (B,) to epsilon or v."""


class Scalings(NamedTuple):
    """The three factors of EDM's eq. 7, each shaped to multiply latents."""

    skip: Tensor
    out: Tensor
    input: Tensor


def _epsilon(sigma: Tensor) -> Scalings:
    """The network predicts the noise (Ho et al. 2020, eq. 11)."""
    return Scalings(skip=sigma.new_ones(sigma.shape), out=-sigma, input=(sigma**2 + 1).rsqrt())


def _v_prediction(sigma: Tensor) -> Scalings:
    """The network predicts v = alpha noise - sqrt(1 - alpha^2) clean (Salimans & Ho 2022, appendix D)."""
    shrink = (sigma**2 + 1).rsqrt()
    return Scalings(skip=shrink**2, out=-sigma * shrink, input=shrink)


PREDICTIONS = {"epsilon": _epsilon, "v_prediction": _v_prediction}


def scalings(prediction: str, sigma: Tensor) -> Scalings:
    """The factors for `prediction` ("epsilon" or "v_prediction") at noise levels (B,), each (B, 1, 1, 1)."""
    try:
        return PREDICTIONS[prediction](sigma[:, None, None, None])
    except KeyError:
        raise FromnoiseError(f"no prediction type {prediction!r}; known: {', '.join(PREDICTIONS)}") from None


def denoiser(predict: Predict, schedule: NoiseSchedule, prediction: str) -> Denoiser:
    """The network `predict` as a Denoiser over the schedule's timesteps."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        scale = scalings(prediction, sigma)
        return scale.skip * x + scale.out * predict(scale.input * x, schedule.time(sigma))

    return denoise
