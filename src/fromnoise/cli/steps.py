"""`steps`: the noisy picture and the picture predicted from it, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fromnoise.cli.console import progress
from fromnoise.cli.drawing import Prompt, open_model
from fromnoise.cli.options import Drawing, ModelFlag, OutputFlag, OverwriteFlag, drawing_flags
from fromnoise.cli.output import Output
from fromnoise.images.sheets import contact_sheet, stacked
from fromnoise.runtime.log import note

if TYPE_CHECKING:
    from PIL.Image import Image

    from fromnoise.pipeline import Pipeline
    from fromnoise.request import Request

PER_BAND = 9
"""Steps side by side before the sheet goes on below."""

ROWS = ("noisy", "predicted")


@drawing_flags(without=("count",))
def steps(
    prompt: Prompt,
    options: Drawing,
    model: ModelFlag = None,
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
    pipe = open_model(model)
    resolved = pipe.resolve(request)
    if request.seed is None:
        note(f"seed {resolved.seed}")
    sheet = steps_sheet(pipe, resolved)
    place.write(sheet, resolved.with_(size=sheet.size), sheet="steps")


def steps_sheet(pipe: Pipeline, request: Request) -> Image:
    """The sheet for a resolved request of one picture; the finished picture stands last."""
    noisy, predicted, labels = [], [], []
    with progress("drawing") as advance:
        for step in pipe.steps(request):
            # At unit variance, as the autoencoder knows latents: noise alone would be far outside its range.
            noisy += pipe.decode(step.noisy / (1 + step.sigma**2) ** 0.5)
            predicted += pipe.decode(step.denoised)
            labels.append(f"step {len(labels) + 1}  σ {step.sigma:.3g}")
            advance(len(labels), request.steps)
            last = step
    finished = pipe.finish(last, request)[0].image
    noisy, predicted, labels = [*noisy, finished], [*predicted, finished], [*labels, "finished"]
    bands = range(0, len(labels), PER_BAND)
    return stacked(
        [
            contact_sheet(
                [noisy[at : at + PER_BAND], predicted[at : at + PER_BAND]],
                row_labels=ROWS,
                column_labels=labels[at : at + PER_BAND],
                title=request.prompt if at == 0 else "",
            )
            for at in bands
        ]
    )
