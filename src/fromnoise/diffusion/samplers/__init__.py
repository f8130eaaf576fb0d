"""Samplers: from noise to picture, one step at a time.

Each is a generator over `sigmas` (n + 1,) that yields a `Step` after every step. Whoever asks for the next step
decides about progress, previews, stopping and saving; `start` takes a saved Step and goes on bit-exactly.
`fromnoise.diffusion.samplers_table` says what each is good for.
"""

from __future__ import annotations

from fromnoise.diffusion.samplers.cfg_pp import GuidedPair, sample_dpmpp_2m_cfg_pp, sample_euler_cfg_pp
from fromnoise.diffusion.samplers.dpm_solver import sample_dpm_adaptive, sample_dpm_fast
from fromnoise.diffusion.samplers.dpmpp import (
    sample_dpmpp_2m,
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
)
from fromnoise.diffusion.samplers.first_order import (
    sample_ddim,
    sample_ddpm,
    sample_euler,
    sample_euler_ancestral,
    sample_lcm,
)
from fromnoise.diffusion.samplers.going_on import fits, step_count
from fromnoise.diffusion.samplers.multistep import sample_lms, sample_plms
from fromnoise.diffusion.samplers.restart import sample_restart
from fromnoise.diffusion.samplers.second_order import sample_dpm2, sample_dpm2_ancestral, sample_heun
from fromnoise.diffusion.samplers.step import Noise, Sampler, Step, ancestral_split, last
from fromnoise.diffusion.samplers.unipc import sample_unipc

SAMPLERS: dict[str, Sampler] = {
    "euler": sample_euler,
    "euler-a": sample_euler_ancestral,
    "heun": sample_heun,
    "ddim": sample_ddim,
    "ddpm": sample_ddpm,
    "plms": sample_plms,
    "lms": sample_lms,
    "dpm2": sample_dpm2,
    "dpm2-a": sample_dpm2_ancestral,
    "dpm-fast": sample_dpm_fast,
    "dpm-adaptive": sample_dpm_adaptive,
    "dpmpp-2m": sample_dpmpp_2m,
    "dpmpp-2m-sde": sample_dpmpp_2m_sde,
    "dpmpp-3m-sde": sample_dpmpp_3m_sde,
    "dpmpp-2s-a": sample_dpmpp_2s_ancestral,
    "dpmpp-sde": sample_dpmpp_sde,
    "unipc": sample_unipc,
    "lcm": sample_lcm,
    "restart": sample_restart,
    "euler-cfg-pp": sample_euler_cfg_pp,
    "dpmpp-2m-cfg-pp": sample_dpmpp_2m_cfg_pp,
}
"""The samplers by the names that a Request uses."""

VARIANCE_PRESERVING = frozenset({"ddim", "ddpm", "plms", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m-sde", "unipc", "lcm"})
"""Samplers whose reference starts from unit noise at unit variance: here, from noise * sqrt(sigma^2 + 1)."""

BROWNIAN = frozenset({"dpmpp-2m-sde", "dpmpp-3m-sde", "dpmpp-sde"})
"""Samplers of a stochastic equation, whose noise is a `runtime.seeds.BrownianNoise`."""

TWO_DENOISERS = frozenset({"euler-cfg-pp", "dpmpp-2m-cfg-pp"})
"""Samplers that take a `GuidedPair` instead of a Denoiser."""

__all__ = [
    "BROWNIAN",
    "SAMPLERS",
    "TWO_DENOISERS",
    "VARIANCE_PRESERVING",
    "GuidedPair",
    "Noise",
    "Sampler",
    "Step",
    "ancestral_split",
    "fits",
    "last",
    "sample_ddim",
    "sample_ddpm",
    "sample_dpm2",
    "sample_dpm2_ancestral",
    "sample_dpm_adaptive",
    "sample_dpm_fast",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_cfg_pp",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_sde",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_euler_cfg_pp",
    "sample_heun",
    "sample_lcm",
    "sample_lms",
    "sample_plms",
    "sample_restart",
    "sample_unipc",
    "step_count",
]
