"""`doctor`: is this guidance too weak or too strong for the prompt, and what to change."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli.console import progress
from fromnoise.cli.drawing import Prompt, open_model, settled, shown
from fromnoise.cli.options import Drawing, Source, shared_flags

if TYPE_CHECKING:
    from fromnoise.diffusion.doctor import Diagnosis
    from fromnoise.pipeline import Pipeline
    from fromnoise.request import Request


@shared_flags()
def doctor(
    prompt: Prompt,
    options: Drawing,
    source: Source,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the figures of every step.")] = False,
) -> None:
    """Draw, and say whether the guidance is too weak or too strong, with figures and what to change.

    It looks at the predicted picture as it goes. Several pictures (--count) also show how alike the seeds come out.

    For example:

    ```sh
    fromnoise doctor "a red apple" --guidance 14 --count 4
    fromnoise doctor "a red apple" --guidance 14 --rescale 0.7 --json
    ```
    """
    pipe = open_model(source)
    found = examine(pipe, settled(pipe, options.request(prompt)))
    print(json.dumps(facts(found), indent=2) if as_json else f"{found}\n{_as_it_went(found)}")


def examine(pipe: Pipeline, request: Request) -> Diagnosis:
    """The diagnosis of a settled request, drawn in one batch."""
    import torch

    from fromnoise.diffusion.doctor import diagnose
    from fromnoise.diffusion.samplers import TWO_DENOISERS

    with progress("drawing") as advance:
        steps = list(shown(pipe.steps(request), advance, 0, pipe.run_steps(request)))
    pixels = torch.cat([pipe.pixels(each) for each in steps[-1].x.split(1)])
    return diagnose(steps, pixels=pixels, guidance=None if request.sampler in TWO_DENOISERS else request.guidance)


def facts(found: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain data."""
    glances = [{"sigma": each.sigma, "norm": float(each.norm.mean())} for each in found.glances]
    return {
        "verdict": found.verdict,
        "position": found.position,
        "positions": dict(found.positions),
        "figures": asdict(found.figures),
        "advice": list(found.advice),
        "steps": glances,
    }


def _as_it_went(found: Diagnosis) -> str:
    norms = " ".join(f"{float(each.norm.mean()):.2f}" for each in found.glances)
    return f"  norm of the predicted picture, step by step: {norms}"
