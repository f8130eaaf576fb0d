"""`upscale`: a picture drawn larger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli.drawing import PictureArgument, draw, open_model, read_input
from fromnoise.cli.options import Drawing, OutputFlag, OverwriteFlag, Source, shared_flags
from fromnoise.cli.output import Output
from fromnoise.images.metadata import read_settings
from fromnoise.images.opening import open_image, to_png, upright_rgb
from fromnoise.request import UPSCALERS, Hires, Request
from fromnoise.runtime.log import note

if TYPE_CHECKING:
    from fromnoise.pipeline import Pipeline

STRENGTH = 0.2
"""How far upscaling leaves a picture."""

UpscalerFlag = typer.Option("--upscaler", metavar="NAME", help=f"{', '.join(UPSCALERS)}.", show_default=Hires.upscaler)


@shared_flags(without=("size",))
def upscale(
    picture: PictureArgument,
    options: Drawing,
    source: Source,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROMPT]",
            help="What is in the picture.",
            show_default="what the picture says itself, else nothing",
        ),
    ] = None,
    scale: Annotated[float, typer.Option("--scale", metavar="TIMES", help="How many times as large.")] = Hires.scale,
    strength: Annotated[
        float, typer.Option("--strength", metavar="0-1", help="How far to leave the enlarged picture.")
    ] = STRENGTH,
    upscaler: Annotated[str, UpscalerFlag] = Hires.upscaler,
    tile: Annotated[
        int | None,
        typer.Option("--tile", metavar="PIXELS", help="Side of the tiles.", show_default="the model's own size"),
    ] = None,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Draw a picture larger: enlarge it, make it a little noisy, and draw it anew in overlapping tiles.

    The tiles are blended at every step, so that no seam shows, and need no more memory than one picture of the
    model's own size. The higher the strength, the more is new.

    For example:

    ```sh
    fromnoise upscale wolf.png --scale 2
    fromnoise upscale photo.jpg "a wolf in the snow" --scale 4 --strength 0.2 -o large.png
    fromnoise "a wolf" -o - | fromnoise upscale - -o wolf.png
    ```
    """
    second = Hires(scale, upscaler, strength, tile=tile)
    data, name = read_input(picture)
    request = options.request(prompt or "")
    place = Output.parse(output, count=request.count, overwrite=overwrite)
    pipe = open_model(source)
    draw(pipe, enlarging(pipe, request, second, data, name, own_words=prompt is None), place.take, "upscaling")


def enlarging(
    pipe: Pipeline, request: Request, second: Hires, data: bytes, name: str, *, own_words: bool = False
) -> Request:
    """The request that upscales a picture's bytes; with `own_words` by the prompts that the picture carries."""
    image = open_image(data, name)
    if own_words and (settings := read_settings(image)) and settings.request:
        said = settings.request
        note(f"the prompt is the picture's own: {said.prompt}")
        request = request.with_(
            prompt=said.prompt,
            negative=request.negative or said.negative,
            weighting=request.weighting or said.weighting,
        )
    hires = replace(second, tile=second.tile or pipe.size[0])
    request = pipe.fill(request.with_(init=to_png(upright_rgb(image)), size=None, hires=hires))
    note(f"steps: {request.steps} asked × {hires.strength:g} = {pipe.run_steps(request)} run")
    return request
