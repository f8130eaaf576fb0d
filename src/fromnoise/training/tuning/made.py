"""What is computed once, before the first step, kept with a run's checkpoints, so that a resumed run goes on with it.

Computed anew its last bits may be others: a product's depend on where in memory its matrices lie.
"""

from __future__ import annotations

from typing import Any

from fromnoise.text.conditioning import Conditioning
from fromnoise.training.callbacks import Callback
from fromnoise.training.tuning.task import TuningTask


class Made(Callback):
    """A task's latents, and the states of captions as far as they have been asked for."""

    def __init__(self, task: TuningTask) -> None:
        self.task = task

    def state(self) -> dict[str, Any]:
        """Both, as tensors."""
        words = {caption: (said.words, said.pooled) for caption, said in self.task.words.made.items()}
        return {"tensors": list(self.task.made()), "words": words}

    def load(self, state: dict[str, Any]) -> None:
        """Take them back; a checkpoint from before they were kept has none."""
        for mine, kept in zip(self.task.made(), state.get("tensors", ()), strict=False):
            mine.copy_(kept)
        self.task.words.made.update({caption: Conditioning(*said) for caption, said in state.get("words", {}).items()})
