"""What is computed once, before the first step, kept with a run's checkpoints, so that a resumed run goes on with it.

Computed anew its last bits may be others: a product's depend on where in memory its matrices lie.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fromnoise.runtime.errors import UsageError
from fromnoise.text.conditioning import Conditioning
from fromnoise.training.callbacks import Callback
from fromnoise.training.tuning.task import TuningTask

ROUNDING = 0.1
"""How far what is computed anew may be from what was kept, relative to that: bfloat16 on another machine, not more."""


class Made(Callback):
    """A task's latents, and the states of captions as far as they have been asked for."""

    def __init__(self, task: TuningTask) -> None:
        self.task = task

    def state(self) -> dict[str, Any]:
        """Both, as tensors."""
        words = {caption: (said.words, said.pooled) for caption, said in self.task.words.made.items()}
        return {"tensors": list(self.task.made()), "words": words}

    def load(self, state: dict[str, Any]) -> None:
        """Take them back; a checkpoint from before they were kept has none. UsageError for those of other pictures."""
        mine, kept = list(self.task.made()), state.get("tensors")
        if kept is not None:
            if len(mine) != len(kept) or not all(map(_alike, mine, kept)):
                raise UsageError(
                    "the pictures aren't those that the run was started with; give the same ones, or another --run"
                )
            for each, before in zip(mine, kept, strict=True):
                each.copy_(before)
        self.task.words.made.update({caption: Conditioning(*said) for caption, said in state.get("words", {}).items()})


def _alike(one: Tensor, other: Tensor) -> bool:
    """True for two computations of the same."""
    return one.shape == other.shape and bool((one - other).float().norm() <= ROUNDING * other.float().norm())
