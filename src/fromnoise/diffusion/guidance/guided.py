"""A run's guided denoiser: asks the network, goes through the stages, and remembers what must be remembered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.guidance.answers import Answers, Ask, Pair, ask_pair
from fromnoise.diffusion.guidance.stages import ClassifierFree, Stage
from fromnoise.runtime.errors import FromnoiseError


class GuidedDenoiser(Protocol):
    """A Denoiser of one run, with what it must keep to go on bit-exactly after a Step was saved."""

    @property
    def state(self) -> tuple[Tensor, ...]: ...

    @state.setter
    def state(self, state: tuple[Tensor, ...]) -> None: ...

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor: ...

    def both(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]: ...


class Interval(NamedTuple):
    """The noise levels at which guidance acts: low < sigma <= high (Kynkäänniemi et al. 2024, section 3)."""

    low: float = 0.0
    high: float = math.inf

    def holds(self, sigma: Tensor) -> Tensor:
        """Which of the levels (B,) are inside, (B,) bool."""
        return (sigma > self.low) & (sigma <= self.high)


class Guided:
    """A Denoiser made of the network's answers and of stages; one object serves one run.

    Outside `interval` the result is the conditional prediction: with `alone`, a denoiser that gives just that, the
    network is asked for nothing else there. `momentum` is how much of the earlier differences between the conditional
    and the unconditional prediction is added to each new one (Sadat et al. 2024, section 4.3; theirs are negative);
    it follows each picture from call to call, so every call must hold all of the run's pictures.
    """

    def __init__(
        self,
        ask: Ask,
        stages: Sequence[Stage],
        *,
        momentum: float = 0.0,
        interval: Interval | None = None,
        alone: Denoiser | None = None,
    ) -> None:
        self._ask, self._stages, self._momentum = ask, tuple(stages), momentum
        self._interval, self._alone = interval or Interval(), alone
        self.state: tuple[Tensor, ...] = ()
        """What must be saved with a Step: nothing, or the sum of the differences, (B, C, h, w)."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The guided picture (B, C, h, w) predicted from x (B, C, h, w) at sigma (B,)."""
        return self.both(x, sigma)[0]

    def both(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The guided picture and the unconditional one, which CFG++ renoises with (Chung et al. 2024, algorithm 2).

        Where guidance is off, and where the network isn't asked for the unconditional one, both are the conditional.
        """
        inside = self._interval.holds(sigma)
        if self._alone is not None and not bool(inside.any()):
            denoised = self._alone(x, sigma)
            return denoised, denoised
        rows = inside[:, None, None, None]
        answers = self._remembering(self._ask(x, sigma), rows)
        guided = answers.conditional
        for stage in self._stages:
            guided = stage(answers, guided)
        unconditional = answers.conditional if answers.unconditional is None else answers.unconditional
        return guided.where(rows, answers.conditional), unconditional.where(rows, answers.conditional)

    def _remembering(self, answers: Answers, rows: Tensor) -> Answers:
        """The answers with their momentum, which only the pictures inside the interval add to."""
        if self._momentum == 0:
            return answers
        difference = answers.difference
        before = self.state[0].to(difference) if self.state else torch.zeros_like(difference)
        if before.shape != difference.shape:
            raise FromnoiseError(
                f"momentum was kept for {len(before)} pictures and is asked for {len(difference)}; "
                "use a sampler with fixed steps, or momentum 0"
            )
        total = difference + self._momentum * before
        self.state = (total.where(rows, before).detach(),)
        return replace(answers, momentum=total)


def classifier_free(denoise: Pair, scale: float) -> Guided:
    """Classifier-free guidance alone: see `ClassifierFree`."""
    return Guided(ask_pair(denoise), [ClassifierFree(scale)])
