"""A request's words, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fromnoise.adapters import Adapted
from fromnoise.pipeline.network import Said
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError
from fromnoise.text import Composed, Conditioning, PromptEncoder, read


@dataclass(frozen=True)
class Wording:
    """What a request says at each of its `steps`; what was said once is kept, so repeats cost nothing.

    `instead` takes the place of the prompt: a mix of several, say.
    """

    prompts: PromptEncoder
    adapted: Adapted
    request: Request
    steps: int
    device: torch.device
    dtype: torch.dtype
    instead: Conditioning | None = None
    _known: dict[tuple[tuple[Composed, ...], Composed], Said] = field(default_factory=dict, repr=False)

    @property
    def weights(self) -> tuple[float, ...]:
        """How much each of the composed prompts counts; (1,) for an ordinary one."""
        if self.instead is not None:
            return (1.0,)
        return tuple(part.weight for part in read(self.request.prompt, str(self.request.weighting)).parts)

    def __call__(self, step: int) -> Said:
        """The words of a step, counted from 0."""
        request = self.request
        positives = read(request.prompt, str(request.weighting)).at(step, self.steps)
        negative = read(request.negative, str(request.weighting), compose=False).at(step, self.steps)[0]
        if (positives, negative) not in self._known:
            self._known[positives, negative] = self._said(positives, negative)
        return self._known[positives, negative]

    def _said(self, positives: tuple[Composed, ...], negative: Composed) -> Said:
        request = self.request
        settings = {"weighting": str(request.weighting), "clip_skip": request.clip_skip}
        with self.adapted:
            made = self.adapted.prompts(self.prompts).pair(positives, negative, **settings)
        said, unsaid = (each.to(self.device, self.dtype) for each in (self._instead_of(made[0]), made[1]))
        return Said(tuple(said[at : at + 1] for at in range(len(said))), unsaid)

    def _instead_of(self, said: Conditioning) -> Conditioning:
        if self.instead is None:
            return said
        if self.instead.words.shape[1:] != said.words.shape[1:] or len(self.instead) != 1:
            raise UsageError("the words given must be one prompt's, of as many chunks as the request's prompts")
        return self.instead
