"""`grid`: one prompt over the values of one or two options, as a labelled contact sheet."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli.console import progress
from fromnoise.cli.drawing import Prompt, open_model, settled
from fromnoise.cli.options import (
    Drawing,
    OutputFlag,
    OverwriteFlag,
    Source,
    parse_apg,
    parse_interval,
    parse_lora,
    parse_reuse,
    parse_size,
    shared_flags,
)
from fromnoise.cli.output import Output
from fromnoise.cli.plan import foretold
from fromnoise.images.sheets import contact_sheet
from fromnoise.request import Lora, Request
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note

if TYPE_CHECKING:
    from PIL.Image import Image

    from fromnoise.pipeline import Pipeline


def parse_switch(text: str) -> bool:
    """`yes` or `no`; UsageError for anything else."""
    if text not in ("yes", "no"):
        raise UsageError(f"--over takes yes or no here, not {text!r}")
    return text == "yes"


OPTIONS = {
    "prompt": str,
    "negative": str,
    "seed": int,
    "steps": int,
    "guidance": float,
    "sampler": str,
    "schedule": str,
    "size": parse_size,
    "weighting": str,
    "clip_skip": int,
    "rescale": float,
    "interval": parse_interval,
    "apg": parse_apg,
    "threshold": float,
    "pag": float,
    "like": str,
    "quality": str,
    "reuse": parse_reuse,
    "merge": float,
    "tile": str,
    "variation": float,
    "variation_seed": int,
    "lora": parse_lora,
    "fast": parse_switch,
    "model": str,
}
"""What a grid may vary, and how its values are read."""

_BETWEEN = {"size": "x", "interval": " to "}

MOST_CELLS = 400

Cell = tuple[Request, str | None]
"""What a picture of the grid is drawn by, and its model where the grid varies models."""

OverFlag = Annotated[
    list[str],
    typer.Option(
        "--over",
        metavar="OPTION=VALUES",
        help=f"Values with commas (or | where a value has commas), whole numbers also as 0-3. "
        f"Once or twice: rows, then columns. Options: {', '.join(OPTIONS)}.",
    ),
]


@dataclass(frozen=True)
class Axis:
    """An option and the values it takes."""

    name: str
    values: tuple[Any, ...]

    def label(self, value: Any) -> str:
        """How a row or column is called."""
        if isinstance(value, Lora):
            return f"{Path(value.path).stem} {value.weight:g}"
        if isinstance(value, bool):
            return f"{self.name} {'yes' if value else 'no'}"
        if isinstance(value, tuple):
            return f"{self.name} {_BETWEEN.get(self.name, ', ').join(f'{each:g}' for each in value)}"
        return f"{self.name} {value:g}" if isinstance(value, float) else f"{self.name} {value}"


@shared_flags(without=("count",))
def grid(
    prompt: Prompt,
    over: OverFlag,
    options: Drawing,
    source: Source,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Draw a prompt over one or two options and show all pictures on one sheet.

    Without --seed one fresh seed serves the whole grid.

    For example:

    ```sh
    fromnoise grid "a red apple" --over guidance=1.1,3,7,14 --over seed=0-3
    fromnoise grid "a red apple" --over steps=3,16,50 --seed 0
    ```
    """
    axes = [parse_axis(each) for each in over]
    _require_sensible(axes)
    base = options.request(prompt)
    if base.seed is None and all(axis.name != "seed" for axis in axes):
        base = base.with_(seed=_fresh_seed())
    place = Output.parse(output, overwrite=overwrite)
    opened = cache(open_model)
    rows = [[_settled(opened, cell, source) for cell in row] for row in cells(base, axes)]
    labels = [[axis.label(value) for value in axis.values] for axis in axes]
    sheet = contact_sheet(
        _draw(rows),
        row_labels=labels[0] if len(axes) == 2 else (),
        column_labels=labels[-1],
        title=prompt,
    )
    place.write(sheet, rows[0][0][1], sheet="; ".join(over))


def parse_axis(text: str) -> Axis:
    """`guidance=1.1,3,7` or `seed=0-3` as an Axis; UsageError for an unknown option or what is no number."""
    name, equals, values = text.partition("=")
    name, values = name.strip().replace("-", "_"), values.strip()
    if not equals or not values or name not in OPTIONS:
        raise UsageError(f"--over takes OPTION=VALUES with an option of {', '.join(OPTIONS)}; not {text!r}")
    read = OPTIONS[name]
    try:
        return Axis(name, tuple(read(part.strip()) for part in _split(values, read)))
    except ValueError:
        raise UsageError(f"--over {text}: {name} takes {'whole numbers' if read is int else 'numbers'}") from None


def cells(base: Request, axes: list[Axis]) -> list[list[Cell]]:
    """Rows of (request, model or None), all checked before anything is drawn."""
    rows = axes[0].values if len(axes) == 2 else (None,)
    return [
        [
            _cell(base, {axes[0].name: row, axes[1].name: column} if len(axes) == 2 else {axes[0].name: column})
            for column in axes[-1].values
        ]
        for row in rows
    ]


def _cell(base: Request, changes: dict[str, Any]) -> Cell:
    model = changes.pop("model", None)
    if lora := changes.pop("lora", None):
        changes["loras"] = (*base.loras, lora)
    return base.with_(**changes), model


def _split(values: str, read: Callable[[str], Any]) -> list[str]:
    """The values' texts; three numbers with commas between them are one value."""
    parts = values.split("|" if "|" in values or read is parse_apg else ",")
    return [piece for part in parts for piece in (_range(part) if read is int else [part])]


def _range(part: str) -> list[str]:
    """`0-3` as 0, 1, 2, 3, and anything else as it is."""
    match = re.fullmatch(r"\s*(\d{1,20})-(\d{1,20})\s*", part)
    if not match:
        return [part]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MOST_CELLS:
        raise UsageError(f"the range {part} should go up, by fewer than {MOST_CELLS}")
    return [str(number) for number in range(first, last + 1)]


def _require_sensible(axes: list[Axis]) -> None:
    names = [axis.name for axis in axes]
    if len(names) > 2 or len(set(names)) < len(names):
        raise UsageError("--over can be given once or twice, with two different options")
    number = len(axes[0].values) * len(axes[-1].values if len(axes) == 2 else (1,))
    if number > MOST_CELLS:
        raise UsageError(f"{number} pictures are too many for one sheet; {MOST_CELLS} fit")


def _fresh_seed() -> int:
    from fromnoise.runtime.seeds import fresh_seed

    seed = fresh_seed()
    note(f"seed {seed}")
    return seed


def _settled(opened: Callable[[Source], Pipeline], cell: Cell, source: Source) -> tuple[Pipeline, Request]:
    """A cell's pipeline and its resolved request, which a model that can't do it refuses here."""
    request, own_model = cell
    pipe = opened(replace(source, model=own_model or source.model))
    return pipe, settled(pipe, request)


def _draw(rows: list[list[tuple[Pipeline, Request]]]) -> list[list[Image]]:
    """Every cell's picture, one after another."""
    total = sum(len(row) for row in rows)
    images: list[list[Image]] = []
    done = 0
    requests = [request for row in rows for _, request in row]
    with foretold(rows[0][0][0], *requests), progress("drawing the grid") as advance:
        for row in rows:
            images.append([])
            for pipe, request in row:
                advance(done, total)
                images[-1].append(pipe(request)[0].image)
                done += 1
    return images
