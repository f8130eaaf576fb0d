"""`replay`: draw a picture again from the settings that it carries, and measure the difference."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from PIL import Image

from fromnoise.cli.drawing import open_model, read_input, run
from fromnoise.cli.options import OutputFlag, OverwriteFlag, Source, shared_flags
from fromnoise.cli.output import Output
from fromnoise.engines.names import AUTO
from fromnoise.images.metadata import OWN, Settings, read_settings
from fromnoise.images.opening import open_image
from fromnoise.images.saving import encode
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import warn

if TYPE_CHECKING:
    from fromnoise.pipeline import Picture, Pipeline

TOLERANCE = 2
"""How far a byte may be off when a picture is drawn in another batch, or on another machine."""


@shared_flags()
def replay(
    picture: Annotated[
        str,
        typer.Argument(
            metavar="PICTURE", help="A picture with its settings inside, or - for standard input.", show_default=False
        ),
    ],
    source: Source,
    exact: Annotated[bool, typer.Option("--exact", help="Fail on any difference at all.")] = False,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> int:
    """Draw a picture again from its own settings and print the largest and the mean difference.

    Exits with 1 when a pixel differs by more than 2/255, or with --exact when any differs. A JPEG is compared with
    the JPEG that the new picture makes. Our own pictures are drawn in the number format that drew them, those by
    AUTOMATIC1111, ComfyUI and others their tool's way, as far as they tell; with -o the new picture is kept. Another
    model or adapter than the one that drew the picture is named before anything is drawn.

    For example:

    ```sh
    fromnoise replay outputs/2026-01-31-0-a-red-apple.png
    fromnoise replay from-the-web.png --model sd15.safetensors -o mine.png
    ```
    """
    place = None if output is None else Output.parse(output, overwrite=overwrite)
    image = open_image(*read_input(picture))
    settings, request = replayable(image, picture)
    pipe = open_model(in_its_format(source, settings, request), [each.model for each in request.controls])
    tell_what_differs(pipe, settings, request, picture)
    resolved = pipe.resolve(request)
    tell_changed_adapters(request, resolved)
    drawn: list[Picture] = []
    run(pipe, resolved, drawn.append, "drawing it again")
    if place is not None:
        place.take(drawn[0])
    again = as_saved(drawn[0].image, image.format or "PNG", request)
    if image.size != again.size:
        sizes = "the file is {}x{} pixels large, and what is drawn {}x{}".format(*image.size, *again.size)
        warn(f"{sizes}: it was cut or resized since")
    largest, mean = difference(image, again)
    print(f"largest difference {largest}/255, mean {mean:.4f}/255")
    return int(largest > (0 if exact else TOLERANCE))


def in_its_format(source: Source, settings: Settings, request: Request) -> Source:
    """The source in the number format that drew the picture, unless another is asked for.

    float16, which only GPUs draw in, is left to be chosen anew.
    """
    known = settings.tool == OWN and request.dtype not in (None, "float16")
    return replace(source, dtype=request.dtype) if known and source.dtype == AUTO else source


def replayable(image: Image.Image, path: str | Path) -> tuple[Settings, Request]:
    """The settings inside a picture and the request that they come to; UsageError when it can't be drawn by them."""
    settings = read_settings(image)
    if settings is None:
        raise UsageError(f"{path} carries no settings to draw it again by")
    if settings.tool == OWN and settings.missing:
        raise UsageError(f"{path} can't be replayed: {settings.missing[0]}")
    if settings.request is None:
        what = "is a contact sheet" if "Sheet" in settings.values else "has settings that can't be read"
        raise UsageError(f"{path} {what}; fromnoise info shows what it says")
    return settings, settings.request


def tell_what_differs(pipe: Pipeline, settings: Settings, request: Request, path: str | Path) -> None:
    """Say before drawing what of another tool's picture can't be followed; UsageError for our own by another model."""
    if settings.tool == OWN:
        return require_same_model(pipe, request, path)
    for said in (*settings.missing, *(f"{key} ({value}) is not followed" for key, value in settings.unread.items())):
        warn(said)
    if request.model_hash not in (None, pipe.hash):
        warn(f"{settings.tool} drew {path} with the model {request.model} ({request.model_hash}); this is {pipe.name}")
    return None


def require_same_model(pipe: Pipeline, request: Request, path: str | Path) -> None:
    """UsageError when another model drew the picture."""
    if request.model_hash not in (None, pipe.hash):
        raise UsageError(
            f"{path} was drawn by the model {request.model} ({request.model_hash}), not by {pipe.name} ({pipe.hash}); "
            "give its folder with --model"
        )


def tell_changed_adapters(drawn: Request, here: Request) -> None:
    """Warn of every adapter whose file is another than the one that drew the picture."""
    for each in drawn.hashes:
        found = [other.hash for other in here.hashes if (other.kind, other.name) == (each.kind, each.name)]
        if not found:
            warn(f"the picture was drawn with the {each.kind} {each.name} ({each.hash}), which is not used here")
        elif not any(_same_hash(each.hash, other) for other in found):
            warn(f"the {each.kind} {each.name} is another file than the one that drew the picture: "
                 f"{found[0]}, not {each.hash}")  # fmt: skip
    tiny = next((each.name for each in here.hashes if each.kind == "vae"), None)
    if drawn.fast and tiny and not any(each.kind == "vae" for each in drawn.hashes):
        warn(f"the picture was decoded by the model's own autoencoder, and is now by {tiny}")


def _same_hash(one: str, other: str) -> bool:
    """True for hashes of different lengths too, as long as one begins with the other; tools cut them differently."""
    length = min(len(one), len(other))
    return length > 0 and one[:length].lower() == other[:length].lower()


def as_saved(image: Image.Image, format: str, request: Request) -> Image.Image:
    """The picture as it comes back from a file of that format, so that like is compared with like."""
    return Image.open(io.BytesIO(encode(image, format, request))).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> tuple[int, float]:
    """The largest and the mean difference of two pictures' bytes, from 0 to 255; all of it for two sizes."""
    if one.size != other.size:
        return 255, 255.0
    pixels = (np.asarray(each.convert("RGB"), np.int16) for each in (one, other))
    gap = np.abs(next(pixels) - next(pixels))
    return int(gap.max()), float(gap.mean())
