"""`inpaint` and `outpaint`: draw inside a mask, or beyond a picture's edges, and keep the rest bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli.controls import ControlFlag, controlled, parse_control
from fromnoise.cli.drawing import PictureArgument, Prompt, draw, inside, masked, open_model, read_input
from fromnoise.cli.options import Drawing, OutputFlag, OverwriteFlag, Source, shared_flags
from fromnoise.cli.output import Output
from fromnoise.images.canvas import OVERLAP, Margins, extended
from fromnoise.images.opening import open_image, upright_rgb
from fromnoise.request import Request

if TYPE_CHECKING:
    from fromnoise.pipeline import Pipeline

STRENGTH = 1.0
"""Inside a mask nothing of the old picture is wanted unless someone says so."""

BEYOND = 0.9
"""Beyond the edges it begins with the colours that were carried there."""

StrengthInside = Annotated[
    float, typer.Option("--strength", metavar="0-1", help="How far to leave what was there; 1 forgets it.")
]
BlurFlag = Annotated[
    int | None,
    typer.Option(
        "--blur", metavar="PIXELS", help="Feather of the mask's edge, inwards.", show_default=f"{Request.mask_blur}"
    ),
]


@dataclass(frozen=True)
class Sides:
    """The flags that say where a picture grows."""

    left: Annotated[int, typer.Option("--left", metavar="PIXELS", help="Pixels added on the left.")] = 0
    right: Annotated[int, typer.Option("--right", metavar="PIXELS", help="Pixels added on the right.")] = 0
    top: Annotated[int, typer.Option("--top", metavar="PIXELS", help="Pixels added above.")] = 0
    bottom: Annotated[int, typer.Option("--bottom", metavar="PIXELS", help="Pixels added below.")] = 0


@shared_flags()
def inpaint(
    picture: PictureArgument,
    prompt: Prompt,
    options: Drawing,
    source: Source,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask", metavar="PICTURE", help="White where to draw.", show_default="where the picture is transparent"
        ),
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Draw where the mask is black instead.")] = False,
    strength: StrengthInside = STRENGTH,
    padding: Annotated[
        int | None,
        typer.Option(
            "--only-masked",
            metavar="PIXELS",
            help="Draw the mask and this much around it alone, in the model's full detail.",
        ),
    ] = None,
    blur: BlurFlag = None,
    control: ControlFlag = None,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Draw inside a mask; what isn't masked stays as it is, bit for bit, and the picture keeps its size.

    Any checkpoint will do, and one made for inpainting sees more of what is around the mask. The mask may be of any
    size, grey, or a picture with a transparent hole.

    For example:

    ```sh
    fromnoise inpaint room.png "a red sofa" --mask sofa.png
    fromnoise inpaint photo.jpg "a hat" --mask head.png --only-masked 32 -o hat.png
    fromnoise inpaint room.png "a window" --mask keep.png --invert --model sd-inpainting.safetensors
    fromnoise inpaint with-a-hole.png "grass"
    ```
    """
    request = options.request(prompt, strength=strength, mask_padding=padding, mask_blur=blur)
    wanted = [parse_control(each) for each in control or ()]
    place = Output.parse(output, count=request.count, overwrite=overwrite)
    data, name = read_input(picture)
    pipe = open_model(source, [each.model for each in wanted])
    request = masked(pipe, request, data, name, mask, invert=invert)
    draw(pipe, controlled(pipe, request, wanted), place.take)


@shared_flags(without=("size",))
def outpaint(
    picture: PictureArgument,
    prompt: Prompt,
    options: Drawing,
    source: Source,
    sides: Sides,
    overlap: Annotated[
        int, typer.Option("--overlap", metavar="PIXELS", help="How much of the old picture's edge is drawn anew.")
    ] = OVERLAP,
    strength: StrengthInside = BEYOND,
    blur: BlurFlag = None,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Draw on beyond a picture's edges. Say what is to be seen there, and how many pixels on which side.

    A lower strength goes on with more of the edge's own colours.

    For example:

    ```sh
    fromnoise outpaint cottage.png "a meadow" --left 64 --right 64
    fromnoise outpaint photo.jpg "blue sky" --top 128 --overlap 16 -o taller.png
    ```
    """
    margins = Margins(sides.left, sides.right, sides.top, sides.bottom)
    request = options.request(prompt, strength=strength, mask_blur=blur)
    place = Output.parse(output, count=request.count, overwrite=overwrite)
    data, name = read_input(picture)
    pipe = open_model(source)
    draw(pipe, outgrown(pipe, request, data, name, margins, overlap), place.take)


def outgrown(pipe: Pipeline, request: Request, data: bytes, name: str, margins: Margins, overlap: int) -> Request:
    """The request that draws beyond a picture's edges, at the canvas's size as near as the model can.

    A canvas that is too large is drawn smaller and put back, as with any other mask.
    """
    from fromnoise.pipeline.inpainting import too_large

    init, mask = extended(upright_rgb(open_image(data, name)), margins, overlap)
    width, height = (max(round(side / pipe.multiple), 1) * pipe.multiple for side in open_image(init).size)
    size = None if too_large((width, height), pipe.size) else (width, height)
    return inside(pipe, request.with_(size=size), init, mask)
