"""`steps`: the noisy picture and the picture predicted from it, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fromnoise.cli.console import progress
from fromnoise.cli.drawing import Prompt, open_model, settled, shown
from fromnoise.cli.options import Drawing, OutputFlag, OverwriteFlag, Source, shared_flags
from fromnoise.cli.output import Output
from fromnoise.cli.plan import foretold
from fromnoise.images.sheets import contact_sheet, stacked

if TYPE_CHECKING:
    from PIL.Image import Image

    from fromnoise.pipeline import Pipeline
    from fromnoise.request import Request

PER_BAND = 9
"""Steps side by side before the sheet goes on below."""

ROWS = ("noisy", "predicted")


@shared_flags(without=("count",))
def steps(
    prompt: Prompt,
    options: Drawing,
    source: Source,
    output: OutputFlag = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Look inside a drawing: at each step the noisy picture above the picture predicted from it.

    For example:

    ```sh
    fromnoise steps "a red apple" --steps 9
    fromnoise steps "a red apple" --sampler euler --seed 0 -o inside.png
    ```
    """
    request = options.request(prompt)
    place = Output.parse(output, overwrite=overwrite)
    pipe = open_model(source)
    request = settled(pipe, request)
    place.write(steps_sheet(pipe, request), request, sheet="steps")


def steps_sheet(pipe: Pipeline, request: Request) -> Image:
    """The sheet for a settled request of one picture; the finished picture stands last in both rows."""
    with foretold(pipe, request), progress("drawing") as advance:
        drawn = list(shown(pipe.steps(request), advance, 0, pipe.run_steps(request)))
    # At unit variance, as the autoencoder knows latents: noise alone would be far outside its range.
    noisy = [pipe.preview(step.noisy / (1 + step.sigma**2) ** 0.5)[0] for step in drawn]
    predicted = [pipe.preview(step.denoised)[0] for step in drawn]
    finished = pipe.finish(drawn[-1], request)[0].image
    labels = [f"step {number} sigma {step.sigma:.3g}" for number, step in enumerate(drawn, 1)] + ["finished"]
    return stacked(list(_bands([*noisy, finished], [*predicted, finished], labels, request.prompt)))


def _bands(noisy: list[Image], predicted: list[Image], labels: list[str], title: str) -> Iterator[Image]:
    for at in range(0, len(labels), PER_BAND):
        band = slice(at, at + PER_BAND)
        yield contact_sheet(
            [noisy[band], predicted[band]],
            row_labels=ROWS,
            column_labels=labels[band],
            title="" if at else title,
        )
