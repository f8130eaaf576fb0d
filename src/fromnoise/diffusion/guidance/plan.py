"""All guidance settings of a drawing, as data, and the run's denoiser that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.diffusion.guidance.answers import ROLES, Role, ask_jointly
from fromnoise.diffusion.guidance.guided import Guided, Interval
from fromnoise.diffusion.guidance.stages import ClassifierFree, DynamicThreshold, Perturbed, Projected, Rescale, Stage

Network = Callable[[Sequence[Role]], Denoiser]
"""Gives a denoiser for a batch that holds x once for each of the roles, as `ask_jointly` lays it out."""


@dataclass(frozen=True)
class Projection:
    """The three settings of adaptive projected guidance (Sadat et al. 2024, table 10), with a start for each.

    `parallel` is eta, `limit` r (None: any norm), `momentum` beta.
    """

    parallel: float = 0.0
    limit: float | None = None
    momentum: float = -0.5


@dataclass(frozen=True)
class Plan:
    """What guides a drawing; the defaults guide by nothing but the prompt. See the stages for each setting.

    The order is fixed: classifier-free or projected guidance, perturbed attention, rescale, dynamic threshold, and
    outside `interval` none of them. `weights` composes several prompts (AND). `pair` asks for the unconditional
    prediction at any scale, since CFG++ samplers renoise with it.
    """

    scale: float = 1.0
    projection: Projection | None = None
    perturbed: float = 0.0
    rescale: float = 0.0
    threshold: float | None = None
    interval: Interval | None = None
    weights: tuple[float, ...] = (1.0,)
    pair: bool = False

    @property
    def roles(self) -> tuple[Role, ...]:
        """The predictions to ask for at a guided step, in batch order: one to three."""
        asked = set(self.roles_alone).union(*(stage.needs for stage in self._guidance))
        return tuple(role for role in ROLES if role in asked or (self.pair and role == "unconditional"))

    @property
    def roles_alone(self) -> tuple[Role, ...]:
        """The predictions to ask for where guidance is off: the conditional, and what composing it needs."""
        return ("conditional",) if self.weights == (1.0,) else ("unconditional", "conditional")

    def stages(self, prediction: str) -> list[Stage]:
        """The stages, for a network that predicts "epsilon" or "v_prediction"."""
        corrections: list[Stage] = []
        if self.rescale:
            corrections.append(Rescale(self.rescale, prediction))
        if self.threshold is not None:
            corrections.append(DynamicThreshold(self.threshold))
        # What is not guided has nothing to correct.
        return [*self._guidance, *corrections] if self._guidance else []

    def start(self, network: Network, prediction: str) -> Guided:
        """The guided denoiser of one run."""
        stages = self.stages(prediction)
        return Guided(
            ask_jointly(network(self.roles), self.roles, self.weights),
            stages,
            momentum=self.projection.momentum if self.projection and self.scale != 1 else 0.0,
            interval=self.interval,
            alone=self._alone(network) if self.interval and self.roles != self.roles_alone else None,
        )

    @property
    def _guidance(self) -> list[Stage]:
        stages: list[Stage] = []
        if self.scale != 1 and self.projection:
            stages.append(Projected(self.scale, self.projection.parallel, self.projection.limit))
        elif self.scale != 1:
            stages.append(ClassifierFree(self.scale))
        if self.perturbed:
            stages.append(Perturbed(self.perturbed))
        return stages

    def _alone(self, network: Network) -> Denoiser:
        ask = ask_jointly(network(self.roles_alone), self.roles_alone, self.weights)

        def conditional(x: Tensor, sigma: Tensor) -> Tensor:
            return ask(x, sigma).conditional

        return conditional
