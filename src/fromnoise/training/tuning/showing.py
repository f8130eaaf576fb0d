"""Pictures on the way: fixed prompts from fixed seeds, before anything is learnt, now and then, and at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fromnoise.images.sheets import contact_sheet, stacked
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import atomic_write
from fromnoise.training.learner import Callback, Learner
from fromnoise.training.record import Record

SEED = 1

Draw = Callable[[], list[Image.Image]]
"""Draws the fixed prompts with the weights of now."""


class Samples(Callback):
    """Draws into `samples/` every so many steps, the first time before any step; `seconds` is what it took last."""

    def __init__(self, folder: Path, prompts: Sequence[str], draw: Draw, every: int, record: Record) -> None:
        self.folder, self.prompts, self.draw, self.every = folder / "samples", prompts, draw, every
        self.record, self.seconds = record, 0.0

    def start(self, learner: Learner) -> None:
        """What the model drew before: anew where no step was made, since an earlier run may have left its own."""
        if self.every and (learner.step_index == 0 or not self.path(0).exists()):
            self.show(learner.step_index)

    def after_step(self, learner: Learner) -> None:
        """What it draws now."""
        if self.every and learner.step_index % self.every == 0:
            self.show(learner.step_index)

    def state(self) -> dict[str, Any]:
        """How long a sheet takes."""
        return {"seconds": self.seconds}

    def load(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.seconds = state.get("seconds", 0.0)

    def show(self, step: int) -> Path:
        """Draw, and write the sheet of a step."""
        path, before = self.path(step), time.monotonic()
        sheet = contact_sheet([self.draw()], column_labels=self.prompts, title=f"step {step}")
        self._write(path, sheet)
        self.record.picture("samples", step, sheet)
        self.seconds = time.monotonic() - before
        return path

    def compare(self, step: int) -> None:
        """`sheet.png`: before above after."""
        before, after = (Image.open(each) for each in (self.path(0), self.show(step)))
        self._write(self.folder.parent / "sheet.png", stacked([before, after]))
        note(f"before and after: {self.folder.parent / 'sheet.png'}")

    def path(self, step: int) -> Path:
        """Where a step's sheet is."""
        return self.folder / f"step-{step:06d}.png"

    def _write(self, path: Path, sheet: Image.Image) -> None:
        with atomic_write(path, overwrite=True) as temporary:
            sheet.save(temporary, "PNG")
