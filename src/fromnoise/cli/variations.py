"""`variations`: pictures a little different from one that was drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fromnoise.cli.drawing import draw, open_model
from fromnoise.cli.options import OutputFlag, OverwriteFlag, Source, shared_flags
from fromnoise.cli.output import Output
from fromnoise.cli.replay import replayable, tell_what_differs
from fromnoise.images.opening import open_image, read_picture
from fromnoise.request import Request
from fromnoise.runtime.log import note

AMOUNT, COUNT = 0.2, 4


@shared_flags()
def variations(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="A picture with its settings inside.", show_default=False)
    ],
    source: Source,
    amount: Annotated[
        float,
        typer.Option("--amount", metavar="0-1", help="How much of another seed's noise to blend in; 1 is all of it."),
    ] = AMOUNT,
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many.")] = COUNT,
    variation_seed: Annotated[
        int | None,
        typer.Option(
            "--variation-seed",
            metavar="N",
            help="The other seed; it counts up from picture to picture.",
            show_default="a fresh one, printed",
        ),
    ] = None,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Draw pictures a little different from one that was drawn: its settings, with a second seed blended in.

    The smaller the amount, the closer they stay. A picture that carries no settings has variations by img2img.

    For example:

    ```sh
    fromnoise variations outputs/2026-01-31-0-a-red-apple.png
    fromnoise variations wolf.png --amount 0.4 --count 8 -o wolves/
    fromnoise "a wolf" --seed 3 --variation 0.2 --variation-seed 7    # the same for a new picture
    ```
    """
    image = open_image(read_picture(picture), str(picture))
    settings, request = replayable(image, picture)
    if request.variation:
        note("this is a variation itself; what is drawn varies from the seed that it varied from")
    request = varied(request, amount, count, variation_seed)
    place = Output.parse(output, count=count, overwrite=overwrite)
    pipe = open_model(source, [each.model for each in request.controls])
    tell_what_differs(pipe, settings, request, picture)
    draw(pipe, request, place.take)


def varied(request: Request, amount: float, count: int, variation_seed: int | None) -> Request:
    """The request for variations of a picture; UsageError for an amount or a count that is out of bounds."""
    return request.with_(variation=amount, variation_seed=variation_seed, count=count)
