"""`--control`: ControlNets and the pictures that they follow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli.options import parse_interval
from fromnoise.images.opening import open_image, read_picture, starting_picture, to_png
from fromnoise.request import Control, Request
from fromnoise.runtime.errors import UsageError

if TYPE_CHECKING:
    from fromnoise.pipeline import Pipeline

ControlFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--control",
        metavar="MODEL=PICTURE[:WEIGHT[:FROM-TO]]",
        help="A ControlNet and the picture it follows, perhaps from one share of the steps to another; repeatable.",
    ),
]

_FORM = re.compile(r"(?P<model>[^=]+)=(?P<picture>.+?)(?::(?P<weight>\d*\.?\d+)(?::(?P<span>[\d.]+-[\d.]+))?)?")


@dataclass(frozen=True)
class Wanted:
    """A `--control` taken apart."""

    model: str
    picture: Path
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0


def parse_control(text: str) -> Wanted:
    """`canny.safetensors=edges.png:0.8:0-0.5` taken apart; UsageError for anything else."""
    match = _FORM.fullmatch(text)
    if not match:
        raise UsageError(f"--control must look like MODEL=PICTURE or MODEL=PICTURE:0.8:0-0.5, not {text!r}")
    span = parse_interval(match["span"]) if match["span"] else (0.0, 1.0)
    return Wanted(match["model"], Path(match["picture"]).expanduser(), float(match["weight"] or 1), *span)


def controlled(pipe: Pipeline, request: Request, wanted: list[Wanted]) -> Request:
    """The request that follows those pictures, each resized to the size to draw, which the first one may decide."""
    for each in wanted:
        png = _followed(pipe, request, each.picture)
        control = Control(each.model, png, each.weight, each.start, each.end)
        request = request.with_(controls=(*request.controls, control))
        if request.init is None:
            request = request.with_(size=open_image(png).size)
    return request


def _followed(pipe: Pipeline, request: Request, path: Path) -> bytes:
    """The picture to follow, at the size to draw; of a mask's surroundings alone, the same region of it."""
    from fromnoise.pipeline.inpainting import Inpainting

    region = request.mask is not None and request.mask_padding is not None
    sized = request.init is None or (request.mask is not None and not region)
    size = request.size if sized else open_image(request.init or b"").size
    png = starting_picture(read_picture(path), pipe.size, pipe.multiple, size, str(path))
    return to_png(Inpainting.of(request.with_(init=png)).shown()) if region else png
