"""What other tools call samplers and schedules, one table a tool, in the AUTOMATIC1111 web UI's spelling.

Whether there is such a sampler here is looked up in `request.SAMPLERS` and `request.SCHEDULES`, which give that
spelling too; so these tables may name more than can be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fromnoise.request import SAMPLERS, SCHEDULES, UPSCALERS


def _by_label(labels: Mapping[str, str]) -> dict[str, str]:
    """The first name for each label, in lower case."""
    return {label.casefold(): name for name, label in reversed(list(labels.items()))}


SAMPLER_LABELS: Mapping[str, str] = MappingProxyType(_by_label(SAMPLERS))
"""Our samplers by the web UI's label in lower case."""

SCHEDULE_LABELS: Mapping[str, str] = MappingProxyType(_by_label(SCHEDULES))
"""Our schedules likewise."""

UPSCALER_LABELS: Mapping[str, str] = MappingProxyType(_by_label(UPSCALERS))
"""Our ways to enlarge a picture likewise."""

A1111_SAMPLERS: Mapping[str, str] = MappingProxyType(
    {
        "k_euler_a": "Euler a",
        "k_euler_ancestral": "Euler a",
        "k_euler": "Euler",
        "k_lms": "LMS",
        "k_heun": "Heun",
        "k_dpm_2": "DPM2",
        "k_dpm_2_a": "DPM2 a",
        "k_dpmpp_2s_a": "DPM++ 2S a",
        "k_dpmpp_2m": "DPM++ 2M",
        "k_dpmpp_sde": "DPM++ SDE",
        "k_dpmpp_2m_sde": "DPM++ 2M SDE",
        "k_dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
        "k_dpmpp_3m_sde": "DPM++ 3M SDE",
        "k_dpm_fast": "DPM fast",
        "k_dpm_ad": "DPM adaptive",
        "k_lcm": "LCM",
        "lmsd": "LMS",
        "kdpm2": "DPM2",
        "kdpm2 a": "DPM2 a",
        "pndm": "PLMS",
        "dpm sde": "DPM++ SDE",
    }
)
"""Other names than the label itself, in lower case: aliases of modules/sd_samplers_*.py, and SD.Next's labels."""

A1111_SCHEDULES: Mapping[str, str] = MappingProxyType(
    {
        "automatic": "Normal",
        "uniform": "Normal",
        "karras": "Karras",
        "exponential": "Exponential",
        "polyexponential": "Polyexponential",
        "sgm uniform": "SGM Uniform",
        "sgm_uniform": "SGM Uniform",
        "sgmuniform": "SGM Uniform",
        "kl optimal": "KL Optimal",
        "kl_optimal": "KL Optimal",
        "align your steps": "Align Your Steps",
        "align_your_steps": "Align Your Steps",
        "simple": "Simple",
        "normal": "Normal",
        "ddim": "DDIM",
        "beta": "Beta",
        "turbo": "Trailing",
    }
)
"""modules/sd_schedulers.py, in lower case. "Automatic" is written only where no other label applied: k-diffusion's."""

A1111_OWN_SCHEDULES: Mapping[str, str] = MappingProxyType(
    {"DDIM": "DDIM", "DDIM CFG++": "DDIM", "PLMS": "DDIM", "UniPC": "DDIM", "LCM": "LCM"}
)
"""What "Automatic" means for samplers that go by timesteps, or by a distilled model's."""

COMFYUI_SAMPLERS: Mapping[str, str] = MappingProxyType(
    {
        "euler": "Euler",
        "euler_cfg_pp": "Euler CFG++",
        "euler_ancestral": "Euler a",
        "euler_ancestral_cfg_pp": "Euler a CFG++",
        "heun": "Heun",
        "heunpp2": "HeunPP2",
        "dpm_2": "DPM2",
        "dpm_2_ancestral": "DPM2 a",
        "lms": "LMS",
        "dpm_fast": "DPM fast",
        "dpm_adaptive": "DPM adaptive",
        "dpmpp_2s_ancestral": "DPM++ 2S a",
        "dpmpp_2s_ancestral_cfg_pp": "DPM++ 2S a CFG++",
        "dpmpp_sde": "DPM++ SDE",
        "dpmpp_sde_gpu": "DPM++ SDE",
        "dpmpp_2m": "DPM++ 2M",
        "dpmpp_2m_cfg_pp": "DPM++ 2M CFG++",
        "dpmpp_2m_sde": "DPM++ 2M SDE",
        "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
        "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
        "dpmpp_2m_sde_heun_gpu": "DPM++ 2M SDE Heun",
        "dpmpp_3m_sde": "DPM++ 3M SDE",
        "dpmpp_3m_sde_gpu": "DPM++ 3M SDE",
        "ddpm": "DDPM",
        "lcm": "LCM",
        "ipndm": "IPNDM",
        "ipndm_v": "IPNDM_V",
        "deis": "DEIS",
        "res_multistep": "Res Multistep",
        "gradient_estimation": "Gradient Estimation",
        "er_sde": "ER SDE",
        "ddim": "DDIM",
        "uni_pc": "UniPC",
        "uni_pc_bh2": "UniPC",
    }
)
"""comfy/samplers.py: SAMPLER_NAMES."""

COMFYUI_SCHEDULES: Mapping[str, str] = MappingProxyType(
    {
        "normal": "Normal",
        "karras": "Karras",
        "exponential": "Exponential",
        "polyexponential": "Polyexponential",
        "sgm_uniform": "SGM Uniform",
        "simple": "Simple",
        "ddim_uniform": "DDIM",
        "beta": "Beta",
        "kl_optimal": "KL Optimal",
        "linear_quadratic": "Linear Quadratic",
        "align_your_steps": "Align Your Steps",
        "turbo": "Turbo",
    }
)
"""comfy/samplers.py: SCHEDULER_HANDLERS, and those that are nodes of their own."""

COMFYUI_SAMPLER_NODES: Mapping[str, str] = MappingProxyType(
    {
        "SamplerEulerAncestral": "euler_ancestral",
        "SamplerEulerAncestralCFGPP": "euler_ancestral_cfg_pp",
        "SamplerEulerCFGpp": "euler_cfg_pp",
        "SamplerLMS": "lms",
        "SamplerDPMAdaptative": "dpm_adaptive",
        "SamplerDPMPP_SDE": "dpmpp_sde",
        "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
        "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
        "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
        "SamplerER_SDE": "er_sde",
    }
)
"""comfy_extras/nodes_custom_sampler.py: nodes that are one sampler, with its name elsewhere."""

COMFYUI_SCHEDULE_NODES: Mapping[str, str] = MappingProxyType(
    {
        "KarrasScheduler": "karras",
        "ExponentialScheduler": "exponential",
        "PolyexponentialScheduler": "polyexponential",
        "BetaSamplingScheduler": "beta",
        "AlignYourStepsScheduler": "align_your_steps",
        "SDTurboScheduler": "turbo",
    }
)
"""Likewise for schedules."""

INVOKEAI_SAMPLERS: Mapping[str, str] = MappingProxyType(
    {
        "ddim": "DDIM",
        "ddpm": "DDPM",
        "deis": "DEIS",
        "lms": "LMS",
        "pndm": "PLMS",
        "heun": "Heun",
        "euler": "Euler",
        "euler_a": "Euler a",
        "kdpm_2": "DPM2",
        "kdpm_2_a": "DPM2 a",
        "dpmpp_2s": "DPM++ 2S",
        "dpmpp_2m": "DPM++ 2M",
        "dpmpp_2m_sde": "DPM++ 2M SDE",
        "dpmpp_3m": "DPM++ 3M",
        "dpmpp_sde": "DPM++ SDE",
        "er_sde": "ER SDE",
        "unipc": "UniPC",
        "lcm": "LCM",
        "tcd": "TCD",
        "plms": "PLMS",
        "k_lms": "LMS",
        "k_euler": "Euler",
        "k_euler_a": "Euler a",
        "k_heun": "Heun",
        "k_dpm_2": "DPM2",
        "k_dpm_2_a": "DPM2 a",
        "k_dpmpp_2": "DPM++ 2M",
        "k_dpmpp_2_a": "DPM++ 2S a",
    }
)
"""backend/stable_diffusion/schedulers/schedulers.py, and the k_ names of versions before 3; `_k` at the end: Karras."""

DIFFUSERS_SAMPLERS: Mapping[str, str] = MappingProxyType(
    {
        "DDIMScheduler": "DDIM",
        "DDPMScheduler": "DDPM",
        "PNDMScheduler": "PLMS",
        "LMSDiscreteScheduler": "LMS",
        "HeunDiscreteScheduler": "Heun",
        "EulerDiscreteScheduler": "Euler",
        "EulerAncestralDiscreteScheduler": "Euler a",
        "KDPM2DiscreteScheduler": "DPM2",
        "KDPM2AncestralDiscreteScheduler": "DPM2 a",
        "DPMSolverMultistepScheduler": "DPM++ 2M",
        "DPMSolverSDEScheduler": "DPM++ SDE",
        "UniPCMultistepScheduler": "UniPC",
        "LCMScheduler": "LCM",
        "DEISMultistepScheduler": "DEIS",
        "TCDScheduler": "TCD",
    }
)
"""Scheduler classes with their defaults."""

NOVELAI_SAMPLERS: Mapping[str, str] = MappingProxyType(
    {
        "k_lms": "LMS",
        "k_euler": "Euler",
        "k_euler_ancestral": "Euler a",
        "k_heun": "Heun",
        "k_dpm_2": "DPM2",
        "k_dpm_2_ancestral": "DPM2 a",
        "k_dpm_fast": "DPM fast",
        "k_dpm_adaptive": "DPM adaptive",
        "k_dpmpp_2s_ancestral": "DPM++ 2S a",
        "k_dpmpp_2m": "DPM++ 2M",
        "k_dpmpp_2m_sde": "DPM++ 2M SDE",
        "k_dpmpp_sde": "DPM++ SDE",
        "plms": "PLMS",
        "ddim": "DDIM",
        "ddim_v3": "DDIM",
    }
)
"""As NovelAI's pictures have them."""
