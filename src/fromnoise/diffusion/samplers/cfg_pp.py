"""CFG++ (Chung et al. 2024): move towards the guided picture, but renoise with the unconditional one.

Guided at a scale of 0 to 1 instead of 1 to 15. The guidance adds up over the steps, so the result depends on their
number by design and no order of convergence holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor

from fromnoise.diffusion.samplers.step import Noise, Step, at, begin, memory, remaining

GuidedPair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Noisy latents and sigma to two predicted pictures: the guided one, and the unconditional one."""


def sample_euler_cfg_pp(
    denoise: GuidedPair, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """DDIM with CFG++, in sigma (Chung et al. 2024, algorithm 2): guided + sigma_next * unconditional epsilon."""
    x = begin(x, noise, start)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy = x
        denoised, unconditional = denoise(x, at(x, sigma))
        x = denoised + sigma_next / sigma * (x - unconditional)
        yield Step(index + 1, sigma, noisy, denoised, x)


def sample_dpmpp_2m_cfg_pp(
    denoise: GuidedPair, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M) with CFG++ (Chung et al. 2024, appendix): only the unconditional picture is extrapolated.

    As in the authors' code; ComfyUI subtracts the last unconditional picture from the guided one instead.
    """
    x = begin(x, noise, start)
    (before,) = memory(x, start) or (None,)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy = x
        denoised, unconditional = denoise(x, at(x, sigma))
        x = denoised + sigma_next / sigma * (x - unconditional)
        if before is not None and sigma_next > 0:
            ratio = math.log(float(sigmas[index - 1]) / sigma) / math.log(sigma / sigma_next)
            x = x + (1 - sigma_next / sigma) * (unconditional - before) / (2 * ratio)
        before = unconditional
        yield Step(index + 1, sigma, noisy, denoised, x, history=(unconditional,))
