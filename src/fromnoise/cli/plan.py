"""`plan`: how long a drawing will take and how much memory, and the line that long drawings begin with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli.options import Drawing, Source, shared_flags
from fromnoise.request import Request
from fromnoise.runtime.log import note

if TYPE_CHECKING:
    from fromnoise.pipeline import Pipeline
    from fromnoise.pipeline.planning import Forecast

LONG = 10e12
"""Operations from which a drawing is worth a line of warning: a few seconds of a fast CPU."""

TELLING = 2.0
"""Seconds that a drawing must take before it says anything about the next one."""


@shared_flags()
def plan(
    options: Drawing,
    source: Source,
    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="What would be drawn.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how long a drawing will take and how much memory, without drawing it.

    The first time, this machine is measured, which takes seconds on a fast one and minutes on a slow or busy one. The
    prediction holds for a machine that does nothing else meanwhile, and for the engine eager; what real drawings took
    corrects it.

    For example:

    ```sh
    fromnoise plan --count 16
    fromnoise plan "a cottage" --model sd15.safetensors --size 768x512 --quality balanced
    ```
    """
    from fromnoise.cli.drawing import open_model
    from fromnoise.pipeline.planning import forecast

    pipe = open_model(source)
    request = pipe.resolve(options.request(prompt))
    found = forecast(pipe, request)
    if as_json:
        print(json.dumps(as_values(found), indent=2))
        return
    print(settings(request))
    if found.ready:
        print(f"  getting ready: {duration(found.ready)}")
    for part in found.parts:
        print(f"  {part.name}: {part.calls} × {part.work.flops / 1e9:,.1f} GFLOP, {duration(part.seconds)} each")
    print(said(found))


def settings(request: Request) -> str:
    """What was planned, in a line."""
    assert request.size is not None
    width, height = request.size
    pictures = "1 picture" if request.count == 1 else f"{request.count} pictures"
    return f"{pictures} of {width}x{height}, {request.steps} steps, {request.sampler}, by {request.model}"


def said(found: Forecast) -> str:
    """`about 1 min 20 s, up to 3.2 GB of memory`."""
    return f"about {duration(found.seconds)}, up to {found.peak / 1e9:.1f} GB of memory"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.12 s, 4.2 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def as_values(found: Forecast) -> dict[str, Any]:
    """The whole forecast for programs: seconds, bytes and operations."""
    parts = [
        {"name": each.name, "calls": each.calls, "flops": each.work.flops, "seconds": each.seconds}
        for each in found.parts
    ]
    return {
        "seconds": found.seconds,
        "ready": found.ready,
        "peak_bytes": found.peak,
        "flops": found.flops,
        "parts": parts,
    }


@contextmanager
def foretold(pipe: Pipeline, *requests: Request) -> Iterator[None]:
    """Around the drawing of settled requests: where that is long, says so before, and learns from it after."""
    from fromnoise.pipeline.planning import forecast, learn, works
    from fromnoise.runtime.machine import busy_seconds

    flops = sum(work.flops * calls for each in requests for _, work, calls in works(pipe, each))
    if pipe.device.type != "cpu" or flops < LONG:
        yield
        return
    found = [forecast(pipe, each) for each in requests]
    total = sum(each.seconds for each in found)
    note(f"about {duration(total)}, up to {max(each.peak for each in found) / 1e9:.1f} GB of memory")
    started = busy_seconds()
    yield
    taken = busy_seconds() - started
    if len(found) == 1 and taken > TELLING:
        learn(pipe, requests[0], found[0], taken)
