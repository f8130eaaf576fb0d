"""`optimize`: a model whose U-Net computes in int8, calibrated on its own drawings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli.console import progress, say
from fromnoise.cli.options import OverwriteFlag, parse_size
from fromnoise.hub import found
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL

if TYPE_CHECKING:
    from fromnoise.pipeline.optimising import Optimised


def optimize(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A checkpoint: folder, file or owner/name pulled.",
            show_default="the embedded model",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="A new folder.", show_default=False)
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="WORDS", help="What to calibrate it on; repeatable.", show_default="four of ours"
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="At which size.", show_default="the model's own"),
    ] = None,
    error: Annotated[
        float,
        typer.Option("--error", metavar="0-1", help="How far the U-Net's answers may lie from the exact ones."),
    ] = 0.03,
    overwrite: OverwriteFlag = False,
) -> None:
    """Make a model faster and smaller on this kind of CPU: most of its U-Net in int8.

    It draws a few pictures to see what the layers are given, fits their weights and inputs into 8 bits, and measures
    on other pictures how far the U-Net's answers then lie from the exact ones. Layers that lose too much stay as they
    are. The folder that it writes is drawn with like any other model, adapters included; training needs the original.

    For example:

    ```sh
    fromnoise optimize sd15.safetensors -o sd15-int8/
    fromnoise "a lighthouse" --model sd15-int8/
    fromnoise optimize sd15.safetensors -o sd15-int8/ --prompt "a portrait" --prompt "a forest" --error 0.02
    ```
    """
    from fromnoise.checkpoints.companions import COMPANIONS
    from fromnoise.checkpoints.convert import write_checkpoint
    from fromnoise.checkpoints.destinations import PICKLES, SINGLE, require_ready
    from fromnoise.pipeline.optimising import optimise

    if output is None or output.suffix.lower() in (SINGLE, *PICKLES):
        raise UsageError("say where to write it: -o and the name of a new folder")
    if not 0 < error < 1:
        raise UsageError(f"--error must lie between 0 and 1, not {error:g}")
    output = output.expanduser()
    source = EMBEDDED_MODEL if model is None else found(model)
    require_ready(output, overwrite, source)
    with progress("optimising") as show:
        made = optimise(
            source, prompts=prompts or (), size=parse_size(size) if size else None, error=error, progress=show
        )
    with progress("writing (bytes)") as show:
        write_checkpoint(made.checkpoint, output, overwrite=overwrite, along=COMPANIONS, progress=show)
    for line in told(made):
        say(line)
    print(output)


def told(made: Optimised) -> list[str]:
    """What was done and what it loses, in lines."""
    errors = ", ".join(f"{100 * error:.1f} % at {time:.0f}" for time, error in sorted(made.errors.items()))
    return [
        f"{made.layers} of {made.candidates} layers in int8, {100 * made.share:.0f} % of the U-Net's weights",
        f"the U-Net's answers lie {100 * made.error:.1f} % from the exact ones (by timestep: {errors})",
    ]
