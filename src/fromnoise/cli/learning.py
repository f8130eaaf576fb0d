"""`dataset`, `train` and `evaluate`: from pinned pictures to judged weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from fromnoise.cli.console import progress, training_progress
from fromnoise.cli.options import OverwriteFlag
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note, warn
from fromnoise.runtime.paths import JUDGE

DatasetFlag = Annotated[Path, typer.Option("--dataset", metavar="FOLDER", help="Made by fromnoise dataset.")]


class Part(StrEnum):
    """What can be trained; each is a module of `fromnoise.training`."""

    AUTOENCODER = "autoencoder"
    TEXT_ENCODER = "text-encoder"
    DENOISER = "denoiser"
    REWARDED_DENOISER = "rewarded-denoiser"
    TINY_AUTOENCODER = "tiny-autoencoder"
    JUDGE = "judge"

    @property
    def about(self) -> str:
        """What training it does, in a sentence."""
        if self is Part.REWARDED_DENOISER:
            return "Train the denoiser on, by what its own drawings are worth: exact colours, and what a judge says."
        return f"Train the {self.value} from scratch."

    @property
    def module(self) -> str:
        """Where its recipe is."""
        return f"fromnoise.training.{self.value.replace('-', '_')}"


def dataset(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to build it.", show_default=False)],
) -> None:
    """Fetch the permissive picture sets, render and caption them, and write one dataset folder.

    Sources are pinned by version and hash; one that can't be fetched is skipped, and the manifest says so. FOLDER is
    new, empty, or a dataset that is built again.

    For example:

    ```sh
    fromnoise dataset dataset/
    ```
    """
    from fromnoise.data import build_dataset

    with progress("building") as show:
        manifest = build_dataset(folder, progress=show)
    note(f"{sum(each.pictures for each in manifest.sources)} pictures")
    if skipped := [each.style for each in manifest.sources if each.skipped]:
        warn(
            f"the dataset lacks {', '.join(skipped)}: what is trained on it can't be compared with figures of a whole "
            "one; build it again to complete it"
        )
    print(folder)


RecipeFlag = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="TOML that replaces fields of the recipe.")
]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")]
RunFlag = Annotated[
    Path | None, typer.Option("--run", metavar="FOLDER", help="Checkpoints and logs.", show_default="runs/PART")
]


def _command(part: Part) -> Callable[..., None]:
    """The command that trains a part."""

    def train(
        recipe: RecipeFlag = None, resume: ResumeFlag = False, data: DatasetFlag = Path("dataset"), run: RunFlag = None
    ) -> None:
        folder = Path("runs") / part.value if run is None else run
        if not resume and (folder / "checkpoint.pt").exists():
            raise UsageError(f"{folder} has a checkpoint: --resume goes on from it, another --run starts afresh")
        trainer = import_module(part.module).train
        with training_progress(f"training the {part.value}") as show:
            trainer(data, folder, recipe, resume=resume, show=show)
        print(folder)

    train.__doc__ = f"""{part.about} Ctrl-C keeps a checkpoint that --resume goes on from.

    For example:

    ```sh
    fromnoise train {part.value}
    fromnoise train {part.value} --recipe small.toml --resume
    ```
    """
    return train


PARTS: Mapping[str, Callable[..., None]] = MappingProxyType({part.value: _command(part) for part in Part})
"""The commands that train each part."""


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="A model folder.", show_default="the embedded model")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    pictures: Annotated[
        int | None,
        typer.Option("--pictures", metavar="N", min=1, help="At most so many of each kind.", show_default="all"),
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option(
            "--judge", metavar="FOLDER", help="Made by fromnoise train judge.", show_default="the shipped one"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--dataset", metavar="FOLDER", help="What that judge learnt from.", show_default="dataset"),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Draw in a few steps without guidance.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Where report.json, report.txt and sheet.png go.",
            show_default="outputs/evaluation-DATE-TIME",
        ),
    ] = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Judge a model: concept and style accuracy, distances to real pictures, a sheet. Works offline.

    A judge of your own reads its dataset once, the first time it is used, and again when --dataset names another.

    For example:

    ```sh
    fromnoise evaluate
    fromnoise evaluate my-model/ --json --pictures 50 -o evaluation/
    fromnoise evaluate --judge runs/judge/judge --dataset dataset/
    ```
    """
    from fromnoise.evaluation import evaluate as judged
    from fromnoise.evaluation import is_prepared, prepare, require_room

    if judge is None and data is not None:
        raise UsageError("the shipped judge knows its real pictures; --dataset goes with a --judge of your own")
    output = Path(f"outputs/evaluation-{datetime.now():%Y-%m-%d-%H%M%S}") if output is None else output
    require_room(output, overwrite=overwrite)
    if judge is not None and not is_prepared(judge, data):
        note("the judge reads the dataset's real pictures")
        prepare(data or Path("dataset"), judge)
    with progress("drawing for the judge") as show:
        report = judged(model, pictures=pictures, fast=fast, judge=judge or JUDGE, show=show)
    print(report.to_json() if as_json else report.to_text(), end="")
    note(f"written: {', '.join(map(str, report.save(output, overwrite=overwrite)))}")
