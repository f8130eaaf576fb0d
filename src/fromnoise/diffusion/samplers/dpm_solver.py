"""DPM-Solver (Lu et al. 2022, "DPM-Solver"): single steps of order 1 to 3 in t = -log sigma, which hold epsilon still.

Times t are (B,) float64: the adaptive form has every picture at a time of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.samplers.first_order import sample_euler
from fromnoise.diffusion.samplers.step import Noise, Step, begin, memory
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.log import note

ABSOLUTE, RELATIVE = 0.0078, 0.05
"""Tolerances of the adaptive form: 0.0078 is the step of an 8-bit picture in [-1, 1] (Lu et al. 2022, appendix C)."""

FIRST_WIDTH, SAFETY, CLOSE = 0.05, 0.81, 1e-5
"""First step in t, the least growth that accepts a step, and how near to the end is the end: k-diffusion's."""


def sample_dpm_fast(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """DPM-Solver-fast (Lu et al. 2022, section 3.4): n calls of the network, in threes, evenly in log sigma.

    Of `sigmas` (n + 1,) it uses the first level, the last above 0, where it ends, and n, the number of calls; one
    step is Euler's. A Step is two or three calls, so there are about n / 3.
    """
    if len(sigmas) < 3:
        yield from sample_euler(denoise, x, sigmas, start=start)
        return
    _say_ends("DPM fast", sigmas)
    x = begin(x, noise, start)
    orders = fast_orders(len(sigmas) - 1)
    first, last = (-sigmas[[0, -2]].double().log()).tolist()
    times = torch.linspace(first, last, len(orders) + 1, dtype=torch.float64)
    for index in range(0 if start is None else start.index, len(orders)):
        noisy, t, t_next = x, times[index].expand(len(x)), times[index + 1].expand(len(x))
        epsilon = _epsilon(denoise, x, t)
        x = _step(denoise, x, epsilon, t, t_next, orders[index])
        yield Step(index + 1, float((-t[0]).exp()), noisy, noisy - _wide((-t).exp(), x) * epsilon, x)


def sample_dpm_adaptive(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, start: Step | None = None
) -> Iterator[Step]:
    """DPM-Solver-23 with error control (Lu et al. 2022, appendix C; the step-size rule is k-diffusion's).

    Of `sigmas` it uses the first level and the last above 0, where it ends; one step is Euler's. Every picture has a
    step size of its own. A Step is one try of three calls: a picture whose error was too large stays where it is, and
    one that has arrived waits for the others. Raises FromnoiseError when the network's answer is not finite.
    """
    if len(sigmas) < 3:
        yield from sample_euler(denoise, x, sigmas, start=start)
        return
    _say_ends("DPM adaptive", sigmas)
    x = begin(x, noise, start)
    first, end = -sigmas[[0, -2]].double().cpu().log()
    t, width, low_before = memory(x, start) or (first.expand(len(x)), first.new_full((len(x),), FIRST_WIDTH), x)
    t, width = t.cpu(), width.cpu()
    index = 0 if start is None else start.index
    while bool((running := t < end - CLOSE).any()):
        noisy, epsilon = x, _epsilon(denoise, x, t)
        # A picture that has arrived takes a step too, which is thrown away.
        t_next = torch.where(running, torch.minimum(end, t + width), t + width)
        low, high = _both_orders(denoise, x, epsilon, t, t_next)
        growth = _growth(low, high, low_before)
        accepted = running & (growth >= SAFETY)
        x, low_before = _where(accepted, high, x), _where(accepted, low, low_before)
        sigma, denoised = float((-t.min()).exp()), noisy - _wide((-t).exp(), x) * epsilon
        t, width, index = torch.where(accepted, t_next, t), torch.where(running, width * growth, width), index + 1
        yield Step(index, sigma, noisy, denoised, x, history=(t, width, low_before))


def _say_ends(name: str, sigmas: Tensor) -> None:
    ends = f"{float(sigmas[0]):.3g} to {float(sigmas[-2]):.3g}"
    note(f"{name} uses only the ends of the schedule, sigma {ends}, and chooses the levels between itself")


def fast_orders(calls: int) -> list[int]:
    """The orders of the steps, which add up to `calls`."""
    steps = calls // 3 + 1
    return [3] * (steps - 2) + [2, 1] if calls % 3 == 0 else [3] * (steps - 1) + [calls % 3]


def _wide(value: Tensor, x: Tensor) -> Tensor:
    """One factor per picture, (B,) to (B, 1, 1, 1)."""
    return value.to(x)[:, None, None, None]


def _where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The new latents of the chosen pictures (B,), the old ones of the others."""
    return torch.where(chosen.to(new.device)[:, None, None, None], new, old)


def _epsilon(denoise: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    sigma = (-t).exp().to(x)
    return (x - denoise(x, sigma)) / sigma[:, None, None, None]


def _first(x: Tensor, epsilon: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """DPM-Solver-1, which is DDIM (Lu et al. 2022, eq. 3.7)."""
    return x - _wide((-t_next).exp() * (t_next - t).expm1(), x) * epsilon


def _step(denoise: Denoiser, x: Tensor, epsilon: Tensor, t: Tensor, t_next: Tensor, order: int) -> Tensor:
    """x at t_next by the solver of the given order; epsilon is the network's answer at t."""
    if order == 1:
        return _first(x, epsilon, t, t_next)
    if order == 2:
        change = _change(denoise, x, epsilon, t, t_next, 1 / 2)
        return _second(x, epsilon, change, t, t_next, 1 / 2)
    return _both_orders(denoise, x, epsilon, t, t_next)[1]


def _change(denoise: Denoiser, x: Tensor, epsilon: Tensor, t: Tensor, t_next: Tensor, share: float) -> Tensor:
    """How epsilon changes over the first `share` of the step."""
    inside = t + share * (t_next - t)
    return _epsilon(denoise, _first(x, epsilon, t, inside), inside) - epsilon


def _second(x: Tensor, epsilon: Tensor, change: Tensor, t: Tensor, t_next: Tensor, share: float) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022, algorithm 4): the change within the first `share` carries on."""
    factor = (-t_next).exp() * (t_next - t).expm1() / (2 * share)
    return _first(x, epsilon, t, t_next) - _wide(factor, x) * change


def _both_orders(denoise: Denoiser, x: Tensor, epsilon: Tensor, t: Tensor, t_next: Tensor) -> tuple[Tensor, Tensor]:
    """x at t_next by DPM-Solver-2 and DPM-Solver-3 (Lu et al. 2022, algorithm 2), which share two calls."""
    width, (share_1, share_2) = t_next - t, (1 / 3, 2 / 3)
    change = _change(denoise, x, epsilon, t, t_next, share_1)
    low = _second(x, epsilon, change, t, t_next, share_1)
    inside = t + share_2 * width
    factor = (-inside).exp() * (share_2 / share_1) * ((share_2 * width).expm1() / (share_2 * width) - 1)
    there = _first(x, epsilon, t, inside) - _wide(factor, x) * change
    change = _epsilon(denoise, there, inside) - epsilon
    factor = (-t_next).exp() / share_2 * (width.expm1() / width - 1)
    return low, _first(x, epsilon, t, t_next) - _wide(factor, x) * change


def _growth(low: Tensor, high: Tensor, before: Tensor) -> Tensor:
    """What each picture's step size should be multiplied by, (B,) float64, in (0.21, 2.57).

    The cube root of the inverse error, which is the root mean square of high - low in units of the tolerance; then
    softly limited.
    """
    tolerance = (RELATIVE * torch.maximum(low.abs(), before.abs())).clamp(min=ABSOLUTE)
    error = ((low - high) / tolerance).flatten(1).square().mean(1).sqrt().double().cpu()
    if not bool(torch.isfinite(error).all()):
        raise FromnoiseError("the network gave values that are not finite; try float32 or less guidance")
    return 1 + ((1 / (error + 1e-8)) ** (1 / 3) - 1).atan()
