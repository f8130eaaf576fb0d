"""`chain`: text to image and image to image in a row, from one recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli.drawing import draw, open_model, started_from
from fromnoise.cli.options import READERS, OutputFlag, OverwriteFlag, Source, parsed, shared_flags
from fromnoise.cli.output import Output
from fromnoise.images.opening import read_picture, to_png
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError

if TYPE_CHECKING:
    from fromnoise.pipeline import Picture, Pipeline

FIELDS = (
    "prompt",
    "negative",
    "seed",
    "steps",
    "guidance",
    "sampler",
    "schedule",
    "size",
    "strength",
    "weighting",
    "clip_skip",
    "rescale",
    "interval",
    "apg",
    "threshold",
    "pag",
    "loras",
    "embeddings",
    "like",
    "variation",
    "variation_seed",
    "tile",
    "quality",
    "reuse",
    "merge",
)
"""What a stage may say; what stands above the stages holds for each that does not say otherwise."""

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE.toml", help="The stages, in order.", show_default=False)
]


@dataclass(frozen=True)
class Stage:
    """One drawing of a chain; `picture` is the file that it starts from, for the first stage alone."""

    request: Request
    picture: Path | None = None


@shared_flags()
def chain(
    recipe: RecipeArgument,
    source: Source,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Run stages one after another, each starting from the picture before it.

    The same as piping img2img commands into each other. A recipe:

    ```toml
    negative = "text"          # what stands first holds for every stage

    [[stage]]                  # may have: picture = "sketch.png"
    prompt = "a wolf"
    seed = 3

    [[stage]]                  # starts from the picture before it
    prompt = "a wolf, oil painting"
    strength = 0.6
    ```

    For example:

    ```sh
    fromnoise chain wolf.toml -o wolf.png
    ```
    """
    stages = read_stages(recipe)
    place = Output.parse(output, overwrite=overwrite)
    place.take(run_chain(open_model(source), stages))


def run_chain(pipe: Pipeline, stages: list[Stage]) -> Picture:
    """Draw the stages in order and give the last picture."""
    drawn: list[Picture] = []
    for number, stage in enumerate(stages, 1):
        request, what = stage.request, f"stage {number} of {len(stages)}"
        if drawn:
            request = started_from(pipe, request, to_png(drawn[-1].image), f"stage {number - 1}")
        elif stage.picture is not None:
            request = started_from(pipe, request, read_picture(stage.picture), str(stage.picture))
        draw(pipe, request, drawn.append, what)
    return drawn[-1]


def read_stages(recipe: Path) -> list[Stage]:
    """The stages of a recipe file; UsageError naming the stage and what is wrong with it."""
    try:
        values = tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read the recipe {recipe}: {error}") from error
    stages = values.pop("stage", None)
    if not isinstance(stages, list) or not stages or not all(isinstance(each, dict) for each in stages):
        raise UsageError(f"{recipe} has no stages; begin each with a line [[stage]]")
    return [_stage(recipe, number, values, stage) for number, stage in enumerate(stages, 1)]


def _stage(recipe: Path, number: int, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Stage:
    said = {**shared, **own}
    picture = said.pop("picture", None)
    if unknown := sorted(said.keys() - set(FIELDS)):
        raise UsageError(f"{recipe}: stage {number} has an unknown field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    if picture is not None and number > 1:
        raise UsageError(f"{recipe}: stage {number} starts from stage {number - 1}; only the first may have a picture")
    if "strength" in own and number == 1 and picture is None:
        raise UsageError(f"{recipe}: stage 1 has a strength but no picture to start from; add picture = ...")
    try:
        request = Request(
            **parsed(
                {
                    key: value if isinstance(value, list) or key not in READERS else str(value)
                    for key, value in said.items()
                }
            )
        )
    except UsageError as error:
        raise UsageError(f"{recipe}: stage {number}: {error}") from error
    return Stage(request, None if picture is None else recipe.parent / str(picture))
