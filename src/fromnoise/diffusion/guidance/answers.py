"""What the network is asked for guidance, and in one call or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser

Role = Literal["unconditional", "conditional", "perturbed"]
ROLES: tuple[Role, ...] = ("unconditional", "conditional", "perturbed")
"""What a prediction is for, in the order in which a joint batch holds them."""

Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Noisy latents and sigma to two denoised pictures: with the prompt, and without (or with the negative one)."""


@dataclass(frozen=True)
class Answers:
    """The pictures (B, C, h, w) predicted from one x (B, C, h, w) at sigma (B,).

    `conditional` is with the prompt, `unconditional` without it or with the negative one, `perturbed` with the prompt
    and with damaged attention; the last two are None where nobody asked. `momentum` is the difference between the
    first two with what is left of earlier ones, where the run keeps that.
    """

    x: Tensor
    sigma: Tensor
    conditional: Tensor
    unconditional: Tensor | None = None
    perturbed: Tensor | None = None
    momentum: Tensor | None = None

    @property
    def difference(self) -> Tensor:
        """What the prompt changes in the predicted picture."""
        assert self.unconditional is not None, "this guidance needs the unconditional prediction"
        return self.conditional - self.unconditional


Ask = Callable[[Tensor, Tensor], Answers]


def pair(conditional: Denoiser, unconditional: Denoiser) -> Pair:
    """Two denoisers, called one after the other."""
    return lambda x, sigma: (conditional(x, sigma), unconditional(x, sigma))


def batched_pair(joint: Denoiser) -> Pair:
    """One denoiser called once on a batch of twice the size, whose first half is the unconditional one."""

    def both(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        unconditional, conditional = joint(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return conditional, unconditional

    return both


def ask_pair(denoise: Pair) -> Ask:
    """A Pair's two answers."""
    return lambda x, sigma: Answers(x, sigma, *denoise(x, sigma))


def ask_jointly(joint: Denoiser, roles: Sequence[Role], weights: Sequence[float] = (1.0,)) -> Ask:
    """One denoiser called once: x stands in its batch once for each of the roles, in their order.

    More than one weight (or one that isn't 1) composes prompts: every role but the unconditional stands in the batch
    once for each of them, and becomes u + sum of w_i (c_i - u) (Liu et al. 2022, "Compositional visual generation
    with composable diffusion models", eq. 11; AND in the AUTOMATIC1111 web UI). That needs the unconditional role.
    """
    copies = [1 if role == "unconditional" else len(weights) for role in roles]

    def ask(x: Tensor, sigma: Tensor) -> Answers:
        count = sum(copies)
        made = iter(joint(torch.cat([x] * count), torch.cat([sigma] * count)).chunk(count))
        parts: dict[Role, list[Tensor]] = {
            role: list(islice(made, number)) for role, number in zip(roles, copies, strict=True)
        }
        return _answers(x, sigma, parts, weights)

    return ask


def ask_separately(denoisers: Mapping[Role, Denoiser]) -> Ask:
    """One call after the other, for little memory."""
    return lambda x, sigma: Answers(x, sigma, **{role: denoise(x, sigma) for role, denoise in denoisers.items()})


def _answers(x: Tensor, sigma: Tensor, parts: Mapping[Role, list[Tensor]], weights: Sequence[float]) -> Answers:
    base = parts["unconditional"][0] if "unconditional" in parts else None
    composed = {role: _composed(base, parts[role], weights) for role in parts if role != "unconditional"}
    return Answers(x, sigma, unconditional=base, **composed)


def _composed(base: Tensor | None, parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    if tuple(weights) == (1.0,):
        return parts[0]
    assert base is not None, "composing prompts needs the unconditional prediction"
    return base + sum(weight * (part - base) for weight, part in zip(weights, parts, strict=True))
