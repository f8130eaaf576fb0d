"""`draft` and `finish`: begin many pictures, look, and go on with some."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli.console import progress
from fromnoise.cli.drawing import Prompt, open_model, settled, shown
from fromnoise.cli.options import Drawing, OutputFlag, OverwriteFlag, Source, shared_flags
from fromnoise.cli.output import Output, slug
from fromnoise.cli.replay import require_same_model, tell_changed_adapters
from fromnoise.engines.names import AUTO
from fromnoise.images.saving import save_picture
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note

if TYPE_CHECKING:
    from fromnoise.pipeline import Picture, Pipeline
    from fromnoise.pipeline.drafting import Draft

SHEET = "sheet.png"
"""The contact sheet in a folder of drafts."""

COUNT = 8
SHARE = 4
"""Without --steps a draft is one part in so many of the model's own steps."""

PartFlag = Annotated[
    str | None,
    typer.Option(
        "--steps",
        metavar="K-of-N",
        help="Draw the first K of N steps, as 4-of-25; K alone is of the model's own number.",
        show_default="a quarter of the model's own",
    ),
]
FolderFlag = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FOLDER", help="Where the drafts go.", show_default="drafts/SEED-PROMPT"),
]


@shared_flags(without=("steps", "count"))
def draft(
    prompt: Prompt,
    options: Drawing,
    source: Source,
    count: Annotated[int, typer.Option("--count", metavar="N", help="Pictures; seeds count up from --seed.")] = COUNT,
    steps: PartFlag = None,
    output: FolderFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Begin many pictures: draw a few of their steps, save where they stand, and show what they will be.

    The folder gets a contact sheet with a number beside each picture; `fromnoise finish` goes on with those you keep.

    For example:

    ```sh
    fromnoise draft "a wolf" --seed 0 --count 8 --steps 4-of-25 -o wolves
    fromnoise finish wolves 2 5
    ```
    """
    from fromnoise.pipeline import drafting

    done, total = parse_part(steps)
    pipe = open_model(source)
    request = settled(pipe, options.request(prompt, count=count, steps=total))
    done = max(1, (request.steps or 1) // SHARE) if done is None else done
    drafting.require_steps_left(pipe, request, done)
    folder = (output or Path("drafts") / f"{request.seed}-{slug(prompt)}").expanduser()
    _require_free(folder, request.count, overwrite)
    drafts = _drawn(pipe, request, done, folder)
    save_picture(
        drafting.draft_sheet(pipe, drafts), request, folder / SHEET, overwrite=True, sheet=f"{done} steps of a draft"
    )
    drafting.remove_drafts(folder, after=len(drafts))
    print(folder / SHEET)
    note(f"fromnoise finish {folder} 1 2 goes on with the first two")


def _drawn(pipe: Pipeline, request: Request, done: int, folder: Path) -> list[Draft]:
    """Every draft, saved as soon as it is drawn."""
    from fromnoise.pipeline import drafting

    drafts: list[Draft] = []
    with progress("drafting") as advance:
        advance(0, request.count)
        for number, each in enumerate(drafting.draft(pipe, request, done), 1):
            drafting.write_draft(folder, number, each)
            drafts.append(each)
            advance(number, request.count)
    return drafts


@shared_flags()
def finish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What fromnoise draft made.", show_default=False)],
    source: Source,
    keep: Annotated[
        list[int] | None,
        typer.Argument(metavar="[NUMBERS]...", help="Which drafts to finish.", show_default="all of them"),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", metavar="WORDS", help="Branch: draw this from here on.", show_default="as drafted"),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option("--negative", metavar="WORDS", help="Branch with another negative.", show_default="as drafted"),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", metavar="SCALE", help="Branch with other guidance.", show_default="as drafted"),
    ] = None,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Go on with drafts to the end, or branch them with other words or other guidance.

    A finished picture is bit-equal to one drawn in one go. A branch remembers what its first steps were told, so that
    it replays too; the drafts stay, to be branched again.

    For example:

    ```sh
    fromnoise finish wolves 2 5
    fromnoise finish wolves 2 --prompt "a wolf in the snow" -o snow.png
    fromnoise finish wolves 2 --guidance 7
    ```
    """
    from fromnoise.pipeline import drafting

    said = {"prompt": prompt, "negative": negative, "guidance": guidance}
    folder = folder.expanduser()
    numbers = list(dict.fromkeys(keep or drafting.numbers_in(folder)))
    if not numbers:
        raise UsageError(f"there are no drafts in {folder}; fromnoise draft makes some")
    drafts = [drafting.read_draft(folder, number) for number in numbers]
    requests = [drafting.branched(each, **{k: v for k, v in said.items() if v is not None}) for each in drafts]
    place = Output.parse(output, count=len(drafts), overwrite=overwrite)
    source = replace(source, dtype=requests[0].dtype or source.dtype) if source.dtype == AUTO else source
    pipe = open_model(source, sorted({each.model for each in requests[0].controls}))
    for number, each in zip(numbers, drafts, strict=True):
        require_same_model(pipe, each.request, folder)
        _require_same_format(pipe, each.request, number)
        tell_changed_adapters(each.request, pipe.resolve(each.request))
    for number, (request, each) in enumerate(zip(requests, drafts, strict=True), 1):
        place.take(_finished(pipe, request, each, f"finishing {number} of {len(drafts)}"))


def _finished(pipe: Pipeline, request: Request, draft: Draft, what: str) -> Picture:
    from fromnoise.pipeline import last

    request = pipe.resolve(request)
    with progress(what) as advance:
        step = last(shown(pipe.steps(request, start=draft.step), advance, 0, pipe.run_steps(request)))
    return pipe.finish(step, request)[0]


def parse_part(text: str | None) -> tuple[int | None, int | None]:
    """`4-of-25` or `4` as steps to draw and of how many; UsageError for anything else."""
    if text is None:
        return None, None
    match = re.fullmatch(r"\s*(\d{1,4})(?:\s*-?\s*of\s*-?\s*(\d{1,4}))?\s*", text)
    if not match:
        raise UsageError(f"--steps of a draft must look like 4-of-25 or 4, not {text!r}")
    return int(match[1]), None if match[2] is None else int(match[2])


def _require_same_format(pipe: Pipeline, request: Request, number: int) -> None:
    """UsageError when a draft was begun in another number format, which its picture wouldn't say."""
    if request.dtype not in (None, pipe.format):
        raise UsageError(
            f"draft {number} was begun in {request.dtype}, not in {pipe.format}; finish it with --dtype {request.dtype}"
        )


def _require_free(folder: Path, count: int, overwrite: bool) -> None:
    """UsageError when drafts, or files of the names they will have, are there and may not be replaced."""
    from fromnoise.pipeline.drafting import files_of, numbers_in

    if folder.is_file():
        raise UsageError(f"{folder} is a file; give -o a folder")
    if numbers_in(folder) and not overwrite:
        raise UsageError(f"{folder} holds drafts already; choose another folder or give --overwrite")
    for path in (folder / SHEET, *(each for number in range(1, count + 1) for each in files_of(folder, number))):
        if path.is_dir():
            raise UsageError(f"{path} is a folder; choose another one for the drafts")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists already; choose another folder or give --overwrite")
