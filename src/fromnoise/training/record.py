"""What a run leaves to look at: figures in `log.jsonl`, and where asked for TensorBoard's event files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note

FOLDER = "tensorboard"


class Record:
    """Figures and pictures of the run in a folder; with `track` also for `tensorboard --logdir`, which is offline."""

    def __init__(self, folder: Path, *, track: bool = False) -> None:
        """UsageError where `track` is asked for and tensorboardX is missing."""
        self.path = folder / "log.jsonl"
        self._writer = _writer(folder / FOLDER) if track else None

    def figures(self, step: int, **values: float) -> None:
        """One line in the log, and one point in each curve."""
        rounded = {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in values.items()}
        self._add({"step": step, **rounded})
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def say(self, text: str) -> None:
        """A note that stays in the log, where nobody watches the run."""
        note(text)
        self._add({"note": text})

    def picture(self, name: str, step: int, picture: Image.Image) -> None:
        """A picture of a step; files beside the log are the caller's."""
        if self._writer:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
            self._writer.flush()

    def _add(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as missing:
        raise UsageError("--track needs tensorboardX: pip install 'fromnoise[track]'") from missing
    return SummaryWriter(str(folder), write_to_disk=True)
