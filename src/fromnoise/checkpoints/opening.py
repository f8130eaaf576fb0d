"""Opening any checkpoint: what is asked for is a path, what comes back says all else."""

from __future__ import annotations

from pathlib import Path

from fromnoise.checkpoints.checkpoint import Checkpoint
from fromnoise.checkpoints.model_folder import open_folder
from fromnoise.checkpoints.recognise import PREDICTIONS
from fromnoise.checkpoints.single_file import open_file
from fromnoise.runtime.errors import UsageError


def open_checkpoint(path: str | Path, *, family: str | None = None, prediction: str | None = None) -> Checkpoint:
    """A checkpoint in any layout, opened but not read: nothing is downloaded and no code in it is run.

    A folder of diffusers' layout (one file a part, shards or variants), a single `.safetensors` or pickle under
    CompVis' or SGM's keys, or a U-Net, autoencoder or ControlNet by itself, which is then the only part.
    Of a single file the family is recognised by the shapes of its weights. SD 2.x files with epsilon and with v look
    alike: see `recognise.prediction_of_file` for how they are told apart. `family` (a name in FAMILIES) and
    `prediction` ("epsilon", "v_prediction") overrule what was found.
    Raises UsageError when there is nothing at `path`, FromnoiseError naming the file when it is damaged or unknown.
    """
    path = Path(path).expanduser()
    if prediction not in (None, *PREDICTIONS):
        raise UsageError(f"prediction must be one of {', '.join(PREDICTIONS)}, not {prediction!r}")
    if path.is_dir():
        return open_folder(path, family, prediction)
    if path.exists():
        return open_file(path, family, prediction)
    raise UsageError(f"there is no checkpoint at {path}")
