"""Samplers: from noise to picture, one step at a time.

Each is a generator over `sigmas` (n + 1,) that yields a `Step` after every step. Whoever asks for the next step
decides about progress, previews, stopping and saving; `start` takes a saved Step and goes on bit-exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.runtime.paths import atomic_write


class Noise(Protocol):
    """Where fresh noise comes from, and where its streams stand."""

    state: Tensor

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """What one step made, and all that is needed to go on from it.

    `index` steps are done; `noisy` (B, C, h, w) went in at level `sigma`; `denoised` is the picture predicted from
    it; `x` came out, at the next level. `history` is the solver's memory, `noise_state` the streams' positions.
    """

    index: int
    sigma: float
    noisy: Tensor
    denoised: Tensor
    x: Tensor
    history: tuple[Tensor, ...] = ()
    noise_state: Tensor | None = None

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        tensors = {"noisy": self.noisy, "denoised": self.denoised, "x": self.x}
        tensors |= {f"history.{index}": each for index, each in enumerate(self.history)}
        if self.noise_state is not None:
            tensors["noise_state"] = self.noise_state
        place = torch.tensor([self.index, self.sigma], dtype=torch.float64)
        with atomic_write(path, overwrite=True) as temporary:
            save_file({**{key: each.clone() for key, each in tensors.items()}, "place": place}, temporary)

    @classmethod
    def read(cls, path: Path) -> Step:
        """The step that `save` wrote."""
        tensors = load_file(path)
        index, sigma = tensors.pop("place").tolist()
        count = sum(key.startswith("history.") for key in tensors)
        history = tuple(tensors.pop(f"history.{each}") for each in range(count))
        return cls(index=int(index), sigma=sigma, history=history, **tensors)


Sampler = Callable[..., Iterator[Step]]


def _levels(sigmas: Tensor, start: Step | None) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Index, level and next level of the steps that are left."""
    first = 0 if start is None else start.index
    for index in range(first, len(sigmas) - 1):
        yield index, sigmas[index], sigmas[index + 1]


def _begin(x: Tensor, noise: Noise | None, start: Step | None) -> Tensor:
    """The latents to go on from; the noise streams are put back where they stood."""
    if start is None:
        return x
    if noise is not None and start.noise_state is not None:
        noise.state = start.noise_state
    return start.x


def _level(sigma: Tensor, x: Tensor) -> Tensor:
    """One level for every picture, (B,)."""
    return sigma.to(x).expand(len(x))


def sample_euler(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """Euler's method on the probability-flow equation (Karras et al. 2022, algorithm 1 without its second half)."""
    x = _begin(x, noise, start)
    for index, sigma, sigma_next in _levels(sigmas, start):
        noisy, denoised = x, denoise(x, _level(sigma, x))
        slope = (x - denoised) / sigma.to(x)
        x = x + slope * (sigma_next - sigma).to(x)
        yield Step(index + 1, float(sigma), noisy, denoised, x)


def sample_heun(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """Heun's method: the mean of the slopes at both ends, second order (Karras et al. 2022, algorithm 1)."""
    x = _begin(x, noise, start)
    for index, sigma, sigma_next in _levels(sigmas, start):
        noisy, denoised = x, denoise(x, _level(sigma, x))
        slope, width = (x - denoised) / sigma.to(x), (sigma_next - sigma).to(x)
        x = noisy + slope * width
        if sigma_next > 0:
            slope_next = (x - denoise(x, _level(sigma_next, x))) / sigma_next.to(x)
            x = noisy + (slope + slope_next) / 2 * width
        yield Step(index + 1, float(sigma), noisy, denoised, x)


def ancestral_split(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """The level to step down to, and the level of fresh noise to add: their squares sum to sigma_next squared.

    DDIM's eq. 16 (Song et al. 2020) written in sigma; k-diffusion's `get_ancestral_step`.
    """
    up = eta * sigma_next * ((sigma**2 - sigma_next**2).clamp(min=0)).sqrt() / sigma
    up = torch.minimum(up, sigma_next)
    return (sigma_next**2 - up**2).sqrt(), up


def _sample_eta(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Noise | None, start: Step | None, eta: float
) -> Iterator[Step]:
    x = _begin(x, noise, start)
    for index, sigma, sigma_next in _levels(sigmas, start):
        noisy, denoised = x, denoise(x, _level(sigma, x))
        down, up = ancestral_split(sigma, sigma_next, eta)
        x = denoised + (down / sigma).to(x) * (x - denoised)
        if noise is not None and up > 0:
            x = x + noise(sigma, sigma_next).to(x) * up.to(x)
        yield Step(index + 1, float(sigma), noisy, denoised, x, noise_state=None if noise is None else noise.state)


def sample_ddim(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """DDIM with eta 0 (Song et al. 2020, eq. 12): in sigma the same step as Euler's, and no noise."""
    return _sample_eta(denoise, x, sigmas, None, start, eta=0.0)


def sample_euler_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise, start: Step | None = None
) -> Iterator[Step]:
    """Step below the next level and add fresh noise up to it: DDIM with eta 1, k-diffusion's "Euler a"."""
    return _sample_eta(denoise, x, sigmas, noise, start, eta=1.0)


def sample_dpmpp_2m(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M), multistep, second order (Lu et al. 2022, algorithm 2); the last step is first order."""
    x = _begin(x, noise, start)
    before = start.history[0] if start else None
    for index, sigma, sigma_next in _levels(sigmas, start):
        noisy, denoised = x, denoise(x, _level(sigma, x))
        target = denoised
        if before is not None and sigma_next > 0:
            ratio = (sigmas[index - 1] / sigma).log() / (sigma / sigma_next).log()
            target = denoised + ((denoised - before) / (2 * ratio)).to(x)
        x = target + (sigma_next / sigma).to(x) * (x - target)
        before = denoised
        yield Step(index + 1, float(sigma), noisy, denoised, x, history=(denoised,))


SAMPLERS: dict[str, Sampler] = {
    "euler": sample_euler,
    "euler-a": sample_euler_ancestral,
    "heun": sample_heun,
    "ddim": sample_ddim,
    "dpmpp-2m": sample_dpmpp_2m,
}
"""The samplers by the names that a Request uses."""

VARIANCE_PRESERVING = frozenset({"ddim", "dpmpp-2m"})
"""Samplers whose reference starts from unit noise at unit variance: here, from noise * sqrt(sigma^2 + 1)."""
