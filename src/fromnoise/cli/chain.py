"""`chain`: text to image and image to image in a row, from one recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli.drawing import draw, open_model, started_from
from fromnoise.cli.options import READERS, OutputFlag, OverwriteFlag, Source, shared_flags
from fromnoise.cli.output import Output
from fromnoise.images.opening import read_picture, to_png
from fromnoise.request import Request
from fromnoise.runtime import checks
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

FILES = ("loras", "embeddings")
"""Fields that are lists of files."""

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE.toml", help="The stages, in order.", show_default=False)
]


@dataclass(frozen=True)
class Stage:
    """One drawing of a chain; `picture` is the file that it starts from, and its `name`, for the first stage alone."""

    request: Request
    picture: bytes | None = None
    name: str = ""


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
    pipe = open_model(source)
    for number, stage in enumerate(stages, 1):
        with _named(recipe, number):
            pipe.resolve(stage.request)
    place.take(run_chain(pipe, stages))


def run_chain(pipe: Pipeline, stages: list[Stage]) -> Picture:
    """Draw the stages in order and give the last picture."""
    drawn: list[Picture] = []
    for number, stage in enumerate(stages, 1):
        request, what = stage.request, f"stage {number} of {len(stages)}"
        if drawn:
            request = started_from(pipe, request, to_png(drawn[-1].image), f"stage {number - 1}")
        elif stage.picture is not None:
            request = started_from(pipe, request, stage.picture, stage.name)
        draw(pipe, request, drawn.append, what)
    return drawn[-1]


def read_stages(recipe: Path) -> list[Stage]:
    """The stages of a recipe file; UsageError naming the stage and what is wrong with it."""
    try:
        values = tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
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
    if "prompt" not in said:
        raise UsageError(f"{recipe}: stage {number} has no prompt; add prompt = ...")
    with _named(recipe, number):
        request = Request(**{key: _read(key, value) for key, value in said.items()})
        init = None if picture is None else read_picture(_picture_path(recipe, picture))
    return Stage(request, init, str(picture))


@contextmanager
def _named(recipe: Path, number: int) -> Iterator[None]:
    """Errors say which stage they are about."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{recipe}: stage {number}: {error}") from error


def _read(key: str, value: Any) -> Any:
    """A field's value: as TOML has it, or as the command line has it in text; lists of files may be one file."""
    if key in FILES:
        files = [value] if isinstance(value, str) else value
        checks.all_of_kind(key, checks.plain(files), str, "files in quotes")
        return READERS[key](files)
    in_text = key in READERS and isinstance(value, str | int | float)
    return READERS[key](str(value)) if in_text else value


def _picture_path(recipe: Path, picture: object) -> Path:
    checks.of_kind("picture", picture, str, "a file in quotes")
    return recipe.parent / Path(str(picture)).expanduser()
