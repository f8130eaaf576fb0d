"""What each sampler and schedule is good for, as data: what `fromnoise samplers` lists. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class SamplerFacts:
    """A sampler in short.

    `order` is the order of accuracy of its steps, the first ones and fresh noise apart: halving their width divides
    the error by 2^order. None where none holds. `calls` is how often a step calls the network, where the first and
    the last step may do so once more or less; None where an error bound decides. A `deterministic` sampler adds no
    noise on the way, so that more steps come to the same picture.
    """

    order: int | None
    calls: int | None
    deterministic: bool
    use: str


SAMPLER_FACTS: Mapping[str, SamplerFacts] = MappingProxyType(
    {
        "euler": SamplerFacts(1, 1, True, "the plainest; a baseline, and safe with any model"),
        "euler-a": SamplerFacts(1, 1, False, "lively pictures in 20 to 40 steps; never settles"),
        "heun": SamplerFacts(2, 2, True, "accurate where time does not matter"),
        "ddim": SamplerFacts(1, 1, True, "Euler in other words; pictures made with DDIM, and inversion"),
        "ddpm": SamplerFacts(1, 1, False, "the original: hundreds of steps, the widest variety"),
        "plms": SamplerFacts(4, 1, True, "pictures made with the first Stable Diffusion"),
        "lms": SamplerFacts(4, 1, True, "smooth models at 30 steps and more; may ring with fewer"),
        "dpm2": SamplerFacts(2, 2, True, "like Heun, with the slope taken halfway"),
        "dpm2-a": SamplerFacts(2, 2, False, "Euler a with more accuracy a step"),
        "dpm-fast": SamplerFacts(
            3, 1, True, "very few calls, 10 to 20; --steps counts calls, the schedule's ends only"
        ),
        "dpm-adaptive": SamplerFacts(3, None, True, "a reference: as many calls as it needs, the schedule's ends only"),
        "dpmpp-2m": SamplerFacts(2, 1, True, "the first choice: good pictures in 15 to 25 steps"),
        "dpmpp-2m-sde": SamplerFacts(2, 1, False, "richer detail than 2M from 25 steps on"),
        "dpmpp-3m-sde": SamplerFacts(3, 1, False, "the finest detail from 40 steps on, with exponential"),
        "dpmpp-2s-a": SamplerFacts(2, 2, False, "Euler a for patience: detail at twice the time"),
        "dpmpp-sde": SamplerFacts(2, 2, False, "good pictures in 10 to 15 steps, each worth two"),
        "unipc": SamplerFacts(3, 1, True, "the fewest steps without distillation: 8 to 15"),
        "lcm": SamplerFacts(None, 1, False, "only for LCM models and adapters: 2 to 8 steps, guidance near 1"),
        "restart": SamplerFacts(2, 2, False, "corrects late mistakes; from 20 steps on"),
        "euler-cfg-pp": SamplerFacts(None, 1, True, "CFG++: less burnt colours; guidance 0 to 1"),
        "dpmpp-2m-cfg-pp": SamplerFacts(None, 1, True, "CFG++ in fewer steps; guidance 0 to 1"),
    }
)

SCHEDULE_FACTS: Mapping[str, str] = MappingProxyType(
    {
        "model": "what the model's scheduler config says; the first choice",
        "leading": "every k-th timestep from the first up: most published Stable Diffusion 1 pictures",
        "linspace": "timesteps evenly from the last to the first",
        "trailing": "every k-th timestep from the last down: the best of the even ones for few steps",
        "karras": "more steps at low noise: sharp detail in 15 to 30 steps",
        "exponential": "even in log sigma: for the SDE samplers",
        "polyexponential": "exponential with a bend, which at 1 is none",
        "sgm-uniform": "linspace without its last level: SDXL Turbo and Lightning",
        "simple": "sigmas picked evenly from the model's own, counted from the last down",
        "normal": "linspace with levels between timesteps found in log sigma",
        "ddim-uniform": "leading from timestep 1: ComfyUI's and AUTOMATIC1111's DDIM",
        "beta": "more steps at both ends",
        "align-your-steps": "levels optimised for Stable Diffusion 1.5, best at about 10 steps",
        "align-your-steps-xl": "levels optimised for SDXL, best at about 10 steps",
        "zero-terminal-snr": "trailing from pure noise, sigma 4096: v-prediction models trained for it",
        "lcm": "the timesteps that LCM models were distilled on",
    }
)
