"""The flags that every drawing command shares, declared once."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from fromnoise.request import LIKE, MAX_SEED, SAMPLERS, SCHEDULES, Request
from fromnoise.runtime.errors import UsageError

OutputFlag = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PLACE",
        help="A file (.png .jpg .webp), a folder, a name with {date} {time} {seed} {slug} {steps} {guidance} "
        "{sampler} {n}, or - for PNG on standard output.",
        show_default="outputs/{date}-{seed}-{slug}.png",
    ),
]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")]
ModelFlag = Annotated[
    str | None,
    typer.Option("--model", metavar="FOLDER", help="A Stable Diffusion folder.", show_default="the embedded model"),
]
StrengthFlag = Annotated[
    float | None,
    typer.Option(
        "--strength", metavar="0-1", help="How far to leave the picture.", show_default=f"{Request.strength:g}"
    ),
]


@dataclass(frozen=True)
class Drawing:
    """What the shared flags said; None where a flag was not given, so that Request's own default holds."""

    negative: Annotated[str | None, typer.Option("--negative", metavar="WORDS", help="What to keep away from.")] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help=f"0 to {MAX_SEED}.", show_default="a fresh one, printed"),
    ] = None
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Sampling steps.", show_default=str(Request.steps))
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            metavar="SCALE",
            help="How closely to follow the prompt.",
            show_default=f"{Request.guidance:g}",
        ),
    ] = None
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", metavar="NAME", help=", ".join(SAMPLERS) + ".", show_default=Request.sampler),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="NAME", help=", ".join(SCHEDULES) + ".", show_default=Request.schedule),
    ] = None
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Pixels: 128 or 192x128.", show_default="the model's own"),
    ] = None
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", help="Pictures; seeds count up from --seed.", show_default="1")
    ] = None
    like: Annotated[
        str | None,
        typer.Option(
            "--like", metavar="TOOL", help=f"Match a tool's pictures: {', '.join(LIKE)}.", show_default=LIKE[0]
        ),
    ] = None
    exact: Annotated[bool, typer.Option("--exact", help="One picture per call: bit-equal whatever the count.")] = False

    def request(self, prompt: str, **more: Any) -> Request:
        """The request for these flags; UsageError for a value that no model could do."""
        flags = {field.name: getattr(self, field.name) for field in fields(self)}
        size = None if self.size is None else parse_size(self.size)
        said = {**flags, **more, "size": size}
        return Request(prompt=prompt, **{key: value for key, value in said.items() if value is not None})


def drawing_flags(*, without: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate `command(…, options: Drawing)`: on the command line it gets Drawing's flags instead of `options`."""
    hints = get_type_hints(Drawing, include_extras=True)
    flags = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(Drawing)
        if each.name not in without
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def flattened(**given: Any) -> Any:
            options = Drawing(**{flag.name: given.pop(flag.name) for flag in flags})
            return command(**given, options=options)

        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own if each.name != "options"]
        flattened.__signature__ = inspect.Signature([*parameters, *flags])  # type: ignore[attr-defined]
        flattened.__annotations__ = {each.name: each.annotation for each in (*parameters, *flags)}
        return flattened

    return decorate


def parse_size(text: str) -> tuple[int, int]:
    """`128` or `192x128` as (width, height); UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip().lower())
    if not match:
        raise UsageError(f"size must look like 128 or 192x128, not {text!r}")
    return int(match[1]), int(match[2] or match[1])
