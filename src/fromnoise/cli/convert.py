"""`convert`: a checkpoint from folder to single file, or back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli.console import progress
from fromnoise.cli.options import OverwriteFlag
from fromnoise.hub import found
from fromnoise.runtime.log import note

if TYPE_CHECKING:
    from fromnoise.checkpoints.checkpoint import Checkpoint

MEGABYTE = 1_000_000

SHOWN = 12
"""Extras listed by name before dots."""


class Prediction(StrEnum):
    """What a U-Net can predict."""

    EPSILON = "epsilon"
    V = "v_prediction"


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="A checkpoint: folder, file or owner/name pulled; or one part.", show_default=False
        ),
    ],
    destination: Annotated[
        Path,
        typer.Argument(metavar="DST", help="A name ending in .safetensors, else a new folder.", show_default=False),
    ],
    keep_extra: Annotated[
        bool, typer.Option("--keep-extra", help="Keep tensors that nobody needs, too: averaged copies, buffers.")
    ] = False,
    prediction: Annotated[
        Prediction | None,
        typer.Option("--prediction", help="What the U-Net predicts.", show_default="as the checkpoint shows"),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family", metavar="NAME", help="Take it for that: sd1, sd2, sdxl …", show_default="as its weights show"
        ),
    ] = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Turn a checkpoint's folder into a single file, or a single file into a folder.

    Every weight keeps its bits and its number format. Nothing is downloaded, and no code in a pickle is run. From
    folder to folder what lies beside the parts (a card, what `--fast` needs) goes along; else a note names it.

    For example:

    ```sh
    fromnoise convert stable-diffusion-v1-5/ sd15.safetensors
    fromnoise convert dreamshaper.safetensors dreamshaper/
    fromnoise convert sd-v1-4.ckpt sd14.safetensors --keep-extra
    ```
    """
    from fromnoise.checkpoints.convert import convert_checkpoint

    with progress("converting (MB)") as advance:
        converted = convert_checkpoint(
            found(source),
            destination.expanduser(),
            keep_extra=keep_extra,
            overwrite=overwrite,
            family=family,
            prediction=prediction.value if prediction else None,
            progress=lambda done, total: advance(done // MEGABYTE, total // MEGABYTE),
        )
    checkpoint = converted.checkpoint
    note(f"{checkpoint.family}: {converted.tensors} tensors, {converted.bytes / MEGABYTE:.1f} MB, {_parts(checkpoint)}")
    if checkpoint.extra_names:
        note(_extras(checkpoint.extra_names, keep_extra))
    print(destination)


def _parts(checkpoint: Checkpoint) -> str:
    return ", ".join(f"{name} {str(part.dtype).removeprefix('torch.')}" for name, part in checkpoint.parts.items())


def _extras(names: tuple[str, ...], kept: bool) -> str:
    """Which extras there are, and what became of them."""
    shown = ", ".join(names[:SHOWN]) + (f", … {len(names)} in all" if len(names) > SHOWN else "")
    return f"extras kept: {shown}" if kept else f"extras left behind (--keep-extra keeps them): {shown}"
