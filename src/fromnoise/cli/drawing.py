"""`generate` and `img2img`, and the drawing loop that all commands share."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli.console import Advance, progress
from fromnoise.cli.controls import ControlFlag, controlled, parse_control
from fromnoise.cli.hires import HiresFlags
from fromnoise.cli.options import (
    Drawing,
    OutputFlag,
    OverwriteFlag,
    Source,
    StrengthFlag,
    shared_flags,
)
from fromnoise.cli.output import Output
from fromnoise.cli.plan import foretold
from fromnoise.images.masks import hole_mask, mask_for
from fromnoise.images.opening import is_see_through, open_image, read_picture, starting_picture, to_png, upright_rgb
from fromnoise.request import RANGES, Request
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note, warn
from fromnoise.runtime.streams import is_terminal

if TYPE_CHECKING:
    from fromnoise.diffusion.samplers import Step
    from fromnoise.pipeline import Picture, Pipeline

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw, in quotes.", show_default=False)]
MaskFlag = Annotated[
    Path | None,
    typer.Option("--mask", metavar="PICTURE", help="White where to draw; the rest is kept as it is."),
]
TileFlag = Annotated[
    str | None,
    typer.Option(
        "--tile",
        metavar="AXES",
        help="Draw a texture whose opposite edges meet: xy, x (left and right) or y (top and bottom).",
    ),
]
PictureArgument = Annotated[
    str, typer.Argument(metavar="PICTURE", help="A picture file, or - for standard input.", show_default=False)
]


@shared_flags()
def generate(
    prompt: Prompt,
    options: Drawing,
    source: Source,
    second: HiresFlags,
    tile: TileFlag = None,
    control: ControlFlag = None,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Draw pictures from words.

    For example:

    ```sh
    fromnoise "a red apple, noto style"
    fromnoise "a red apple" --fast
    fromnoise generate "a tortoise" --seed 0 --count 4 --guidance 7 -o tortoises/
    fromnoise "a cottage" --model sd15.safetensors --control canny.safetensors=edges.png:0.8
    fromnoise "pebbles" --tile xy -o texture.png
    fromnoise "a tortoise" --hires 2 --hires-strength 0.4
    fromnoise "a wolf" -o - | fromnoise img2img - "a wolf, oil painting" -o wolf.png
    ```
    """
    request = options.request(prompt, hires=second.second_pass(), tile=tile)
    wanted = [parse_control(each) for each in control or ()]
    place = Output.parse(output, count=request.count, overwrite=overwrite)
    pipe = open_model(source, [each.model for each in wanted])
    draw(pipe, controlled(pipe, request, wanted), place.take)


@shared_flags()
def img2img(
    picture: PictureArgument,
    prompt: Prompt,
    options: Drawing,
    source: Source,
    strength: StrengthFlag = None,
    mask: MaskFlag = None,
    tile: TileFlag = None,
    control: ControlFlag = None,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Draw from a picture and words: the picture is made noisy and drawn anew.

    At strength 0.6 the last 60 % of the steps are run. The picture may be any that Pillow reads.

    For example:

    ```sh
    fromnoise img2img sketch.jpg "a wolf" --strength 0.8
    fromnoise img2img - "a wolf, oil painting" -o oil.png < wolf.png
    fromnoise img2img pebbles.jpg "moss" --tile xy
    fromnoise img2img room.png "a red sofa" --mask sofa.png    # more of this: fromnoise inpaint
    ```
    """
    request = options.request(prompt, strength=strength, tile=tile)
    wanted = [parse_control(each) for each in control or ()]
    place = Output.parse(output, count=request.count, overwrite=overwrite)
    data, name = read_input(picture)
    pipe = open_model(source, [each.model for each in wanted])
    begun = started_from if mask is None else partial(masked, mask=mask)
    request = begun(pipe, request, data, name)
    draw(pipe, controlled(pipe, request, wanted), place.take)


def open_model(source: Source, controls: Sequence[str] = ()) -> Pipeline:
    """The pipeline that the flags name, or the embedded one."""
    from fromnoise.pipeline import load

    return load(**asdict(source), controls=controls)


def read_input(picture: str) -> tuple[bytes, str]:
    """A picture argument's bytes and what to call it in messages; `-` is standard input."""
    if picture != "-":
        return read_picture(Path(picture).expanduser()), picture
    if sys.stdin is None:
        raise UsageError("standard input is closed; give a picture file")
    if is_terminal(sys.stdin):
        raise UsageError("nothing is piped in; give a picture file, or pipe one: … -o - | fromnoise img2img - …")
    return sys.stdin.buffer.read(), "standard input"


def started_from(pipe: Pipeline, request: Request, data: bytes, name: str) -> Request:
    """The image-to-image request that starts from a picture's bytes; says how many steps it really runs."""
    init = starting_picture(data, pipe.size, pipe.multiple, request.size, name)
    request = pipe.fill(request.with_(init=init, size=None))
    note(steps_said(request, pipe.run_steps))
    return request


def masked(
    pipe: Pipeline, request: Request, data: bytes, name: str, mask: Path | None, *, invert: bool = False
) -> Request:
    """The request that draws only where the mask is white, or without one where the picture is transparent."""
    image = open_image(data, name)
    opaque = upright_rgb(image)
    if mask is None:
        white = hole_mask(image, name, invert=invert)
    else:
        white = mask_for(read_picture(mask.expanduser()), opaque.size, str(mask), invert=invert)
        if is_see_through(image):
            note(f"{name} is transparent in places; with --mask they are laid over white")
    return inside(pipe, request, to_png(opaque), white)


def inside(pipe: Pipeline, request: Request, init: bytes, mask: bytes) -> Request:
    """The request that draws inside a mask; says the size that it is drawn at, and how many steps it really runs."""
    from fromnoise.pipeline.inpainting import Inpainting, drawing_size

    request = pipe.fill(request.with_(init=init, mask=mask))
    request = request.with_(size=request.size or drawing_size(request, pipe.size, pipe.multiple))
    assert request.size is not None
    left, top, right, bottom = Inpainting.of(request).box
    if (right - left, bottom - top) != request.size:
        width, height = request.size
        note(f"{right - left}x{bottom - top} of the picture are drawn at {width}x{height} and put back")
    if request.strength < 1:
        note(steps_said(request, pipe.run_steps))
    return request


def steps_said(request: Request, run_steps: Callable[[Request], int]) -> str:
    """`25 asked x 0.6 = 15 run`, and what to ask for to run them all; of a request that states its steps."""
    asked, run = request.steps or 0, run_steps(request)
    said = f"steps: {asked} asked × {request.strength:g} = {run} run"
    if run == asked:
        return said
    numbers = range(asked, int(RANGES["steps"][1]) + 1)
    enough = bisect_left(numbers, asked, key=lambda steps: run_steps(request.with_(steps=steps)))
    return said if enough == len(numbers) else f"{said} (--steps {numbers[enough]} runs {asked})"


def draw(pipe: Pipeline, request: Request, take: Callable[[Picture], None], what: str = "drawing") -> None:
    """Draw a request with a progress bar, handing each picture over as soon as it is done."""
    run(pipe, settled(pipe, request), take, what)


def settled(pipe: Pipeline, request: Request) -> Request:
    """The request with everything stated; says a fresh seed, and when the prompt is far from all the model knows."""
    resolved = pipe.resolve(request)
    if request.seed is None:
        note(f"seed {resolved.seed}")
    if resolved.variation and request.variation_seed is None:
        note(f"variation seed {resolved.variation_seed}")
    _warn_if_far(pipe, request.prompt, resolved.weighting or "none")
    return resolved


def run(pipe: Pipeline, request: Request, take: Callable[[Picture], None], what: str) -> None:
    """Draw a settled request."""
    from fromnoise.pipeline import last

    parts = list(pipe.parts(request))
    steps = max(1, pipe.run_steps(request))
    with foretold(pipe, request), progress(what) as advance:
        for number, part in enumerate(parts):
            steps_done = shown(pipe.steps(part), advance, number * steps, len(parts) * steps)
            for picture in pipe.finish(last(steps_done), part):
                take(picture)


def shown(steps: Iterator[Step], advance: Advance, done: int, total: int) -> Iterator[Step]:
    """The same steps, the bar moving with them."""
    advance(done, total)
    for step in steps:
        advance(done + step.index, total)
        yield step


def _warn_if_far(pipe: Pipeline, prompt: str, weighting: str) -> None:
    from fromnoise.text import KnownConcepts, read

    known = KnownConcepts.read(pipe.path) if pipe.path and pipe.path.is_dir() else None
    remark = known.remark(pipe.text, read(prompt, weighting).at(0, 1)[0].words) if known else None
    if remark:
        warn(remark)
