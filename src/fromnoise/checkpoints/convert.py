"""From folder to single file and back: every tensor that the maps name keeps its bits and its dtype."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fromnoise.checkpoints.building import build
from fromnoise.checkpoints.checkpoint import Checkpoint, Part
from fromnoise.checkpoints.companions import COMPANIONS, TUNABLE, beside, copy_along
from fromnoise.checkpoints.destinations import is_single, require_apart, require_free
from fromnoise.checkpoints.model_folder import write_folder
from fromnoise.checkpoints.opening import open_checkpoint
from fromnoise.checkpoints.report import compare
from fromnoise.checkpoints.single_file import write_file
from fromnoise.checkpoints.tensor_file import Told
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note, warn

Progress = Callable[[int, int], None]
"""Told how many bytes are written, and of how many."""


@dataclass(frozen=True)
class Conversion:
    """What was converted, and how many named tensors and bytes of them were written."""

    checkpoint: Checkpoint
    tensors: int
    bytes: int


def convert_checkpoint(
    source: Path,
    destination: Path,
    *,
    keep_extra: bool = False,
    overwrite: bool = False,
    family: str | None = None,
    prediction: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Conversion:
    """Write the checkpoint at `source` as a single file where `destination` ends in .safetensors, else as a folder.

    What is written is whole or not there at all.

    Declared extras (averaged copies, training buffers, a last layer that is not used) are left behind unless
    `keep_extra`; the folder keeps them, and a file's metadata, in a file of its own. `family` and `prediction` as for
    `open_checkpoint`.
    Raises UsageError when the destination exists and may not be replaced.
    """
    require_apart(source, destination)
    require_free(destination, overwrite)
    checkpoint = open_checkpoint(source, family=family, prediction=prediction)
    return write_checkpoint(
        checkpoint, destination, keep_extra=keep_extra, overwrite=overwrite, along=COMPANIONS, progress=progress
    )


def write_checkpoint(
    checkpoint: Checkpoint,
    destination: Path,
    *,
    keep_extra: bool = False,
    overwrite: bool = False,
    along: Collection[str] = TUNABLE,
    progress: Progress = lambda done, total: None,
) -> Conversion:
    """Write an opened checkpoint, each tensor read only when its turn comes. See `convert_checkpoint`.

    `along` names what lies beside its parts and is copied from folder to folder; a note says what is left behind.
    """
    require_apart(checkpoint.path, destination)
    require_free(destination, overwrite)
    for part in checkpoint.parts.values():
        _require_whole(part)
    named = [each for part in checkpoint.parts.values() for each in part.tensors.values()]
    size = sum(each.bytes for each in named)
    told = _counter(progress, size + (sum(each.bytes for each in checkpoint.extras.values()) if keep_extra else 0))
    _warn_of_gaps(checkpoint)
    had = beside(checkpoint.path)
    if is_single(destination):
        write_file(destination, checkpoint, keep_extra=keep_extra, overwrite=overwrite, told=told)
    else:
        with _folder_at(destination) as folder:
            write_folder(folder, checkpoint, keep_extra=keep_extra, told=told)
            copy_along(checkpoint.path, folder, along)
    kept = () if is_single(destination) else along
    if left := [each.name for each in had if each.name not in kept]:
        note(f"left behind: {', '.join(left)}")
    return Conversion(checkpoint, len(named), size)


def _require_whole(part: Part) -> None:
    """FromnoiseError unless the part has just the keys and shapes that its config promises."""
    expected = f"{part.name} of a {part.family} checkpoint"
    compare(part.source, expected, build(part.config).state_dict(), part.tensors).require_complete()


def _warn_of_gaps(checkpoint: Checkpoint) -> None:
    """A lone autoencoder's file does not say how its latents are scaled, and diffusers would assume SD 1's factor."""
    vae = checkpoint.parts.get("vae")
    if vae and vae.class_name == "AutoencoderKL" and "scaling_factor" not in vae.config:
        warn(f"{vae.source} does not say how its latents are scaled; name its family (sdxl, say) to write it down")


def _counter(progress: Progress, total: int) -> Told:
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return told


@contextmanager
def _folder_at(destination: Path) -> Iterator[Path]:
    """A temporary folder that takes the destination's place when the block ends well, and vanishes otherwise."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-")
    except OSError as error:
        raise UsageError(f"can't write in {destination.parent}: {error.strerror or error}") from error
    with place as temporary:
        made, replaced = Path(temporary, "new"), Path(temporary, "old")
        made.mkdir()
        yield made
        if destination.exists():
            destination.rename(replaced)
        try:
            made.rename(destination)
        except OSError:
            if replaced.exists():
                replaced.rename(destination)
            raise
