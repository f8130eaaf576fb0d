"""The flags that every drawing command shares, declared once."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from fromnoise.engines.names import AUTO, DTYPES, ENGINES
from fromnoise.request import LIKE, MAX_SEED, QUALITIES, SAMPLERS, SCHEDULES, WEIGHTINGS, Lora, Request
from fromnoise.runtime.errors import UsageError

OWN = "the model's own"

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
    steps: Annotated[int | None, typer.Option("--steps", metavar="N", help="Sampling steps.", show_default=OWN)] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            metavar="SCALE",
            help="How closely to follow the prompt.",
            show_default=OWN,
        ),
    ] = None
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", metavar="NAME", help=", ".join(SAMPLERS) + ".", show_default=OWN),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="NAME", help=", ".join(SCHEDULES) + ".", show_default=OWN),
    ] = None
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Pixels: 128 or 192x128.", show_default=OWN),
    ] = None
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", help="Pictures; seeds count up from --seed.", show_default="1")
    ] = None
    weighting: Annotated[
        str | None,
        typer.Option(
            "--weighting",
            metavar="TOOL",
            help=f"Arithmetic of (word:1.3): {', '.join(WEIGHTINGS)}.",
            show_default="as --like has it, else a1111",
        ),
    ] = None
    clip_skip: Annotated[
        int | None,
        typer.Option("--clip-skip", metavar="N", help="Text layer, counted from the end.", show_default=OWN),
    ] = None
    rescale: Annotated[
        float | None,
        typer.Option("--rescale", metavar="0-1", help="Bring guided contrast back.", show_default="0"),
    ] = None
    interval: Annotated[
        str | None,
        typer.Option("--interval", metavar="FROM-TO", help="Guide only in this share of the steps, as 0.2-0.8."),
    ] = None
    apg: Annotated[
        str | None,
        typer.Option(
            "--apg", metavar="A,B,C", help="Projected guidance: parallel part, norm limit, momentum, as 0,0,-0.5."
        ),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="0.5-1", help="Dynamic thresholding at this percentile, as 0.995."),
    ] = None
    pag: Annotated[
        float | None, typer.Option("--pag", metavar="SCALE", help="Perturbed-attention guidance.", show_default="0")
    ] = None
    loras: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="FILE[:WEIGHT]", help="A LoRA, LoHa or LoKr; repeatable."),
    ] = None
    embeddings: Annotated[
        list[str] | None,
        typer.Option("--embedding", metavar="FILE", help="A textual inversion, its token for the prompt; repeatable."),
    ] = None
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="TOOL", help=f"Match a tool's pictures: {', '.join(LIKE)}."),
    ] = None
    variation: Annotated[
        float | None,
        typer.Option("--variation", metavar="0-1", help="Share of a second seed's noise to mix in.", show_default="0"),
    ] = None
    variation_seed: Annotated[
        int | None,
        typer.Option(
            "--variation-seed", metavar="N", help="The second seed; it counts up.", show_default="a fresh one, printed"
        ),
    ] = None
    quality: Annotated[
        str | None,
        typer.Option(
            "--quality",
            metavar="CHOICE",
            help=f"How much work a picture is worth: {', '.join(QUALITIES)}. Other flags win over it.",
            show_default="best",
        ),
    ] = None
    reuse: Annotated[
        str | None,
        typer.Option(
            "--reuse", metavar="N[,LAYERS]", help="Compute deep layers at every Nth step only, as 2; 1 is never reuse."
        ),
    ] = None
    merge: Annotated[
        float | None,
        typer.Option("--merge", metavar="0-0.75", help="Share of tokens that self-attention merges.", show_default="0"),
    ] = None
    exact: Annotated[bool, typer.Option("--exact", help="One picture per call: bit-equal whatever the count.")] = False
    fast: Annotated[bool, typer.Option("--fast", help="A few steps without guidance: much sooner, nearly as good.")] = (
        False
    )

    def request(self, prompt: str, **more: Any) -> Request:
        """The request for these flags; UsageError for a value that no model could do."""
        flags = {field.name: getattr(self, field.name) for field in fields(self)}
        said = {key: value for key, value in {**flags, **more}.items() if value is not None}
        return Request(prompt=prompt, **parsed(said))


@dataclass(frozen=True)
class Source:
    """What draws: the model, and what is put in its place or beside it."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="PATH", help="A Stable Diffusion folder or file.", show_default="the embedded model"
        ),
    ] = None
    unet: Annotated[str | None, typer.Option("--unet", metavar="PATH", help="Another checkpoint's U-Net.")] = None
    vae: Annotated[
        str | None, typer.Option("--vae", metavar="PATH", help="Another autoencoder, a tiny one for drafts perhaps.")
    ] = None
    prediction: Annotated[
        str | None,
        typer.Option(
            "--prediction", metavar="TYPE", help="epsilon or v_prediction.", show_default="as the checkpoint tells"
        ),
    ] = None
    wildcards: Annotated[
        str | None,
        typer.Option("--wildcards", metavar="FOLDER", help="Its animal.txt answers `__animal__` in a prompt."),
    ] = None
    lora_folder: Annotated[
        str | None,
        typer.Option(
            "--loras", metavar="FOLDER", help="Its my-wolf.safetensors answers `<lora:my-wolf:0.8>` in a prompt."
        ),
    ] = None
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help=f"What runs the networks: {', '.join(ENGINES)}.")
    ] = AUTO
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", metavar="NAME", help=f"{', '.join(DTYPES)}; auto is bfloat16 where it's fast, else float32."
        ),
    ] = AUTO
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Hold one part of the model at a time; each picture reads them anew.")
    ] = False


def shared_flags(*, without: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command: on the command line its dataclass parameters become their flags."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True).parameters.values()
        kinds = {each.name: each.annotation for each in own if isinstance(each.annotation, type)}
        groups = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
        flags = {name: [each for each in _flags(kind) if each.name not in without] for name, kind in groups.items()}

        @functools.wraps(command)
        def flattened(**given: Any) -> Any:
            made = {
                name: groups[name](**{flag.name: given.pop(flag.name) for flag in each}) for name, each in flags.items()
            }
            return command(**given, **made)

        kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own if each.name not in groups]
        parameters = [*kept, *(flag for each in flags.values() for flag in each)]
        flattened.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        flattened.__annotations__ = {each.name: each.annotation for each in parameters}
        return flattened

    return decorate


def _flags(kind: type) -> list[inspect.Parameter]:
    """A group's fields as keyword parameters."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(kind)
    ]


def parsed(said: Mapping[str, Any]) -> dict[str, Any]:
    """A request's fields, those that were given as text read; UsageError for text that can't be."""
    return {key: READERS[key](value) if key in READERS and value is not None else value for key, value in said.items()}


def parse_size(text: str) -> tuple[int, int]:
    """`128` or `192x128` as (width, height); UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip().lower())
    if not match:
        raise UsageError(f"size must look like 128 or 192x128, not {text!r}")
    return int(match[1]), int(match[2] or match[1])


def parse_interval(text: str) -> tuple[float, float]:
    """`0.2-0.8` as two numbers; UsageError for anything else."""
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*", text)
    if not match:
        raise UsageError(f"interval must look like 0.2-0.8, not {text!r}")
    return float(match[1]), float(match[2])


def parse_reuse(text: str) -> tuple[int, int]:
    """`3` or `3,2` as calls and layers; UsageError for anything else."""
    match = re.fullmatch(r"\s*(\d{1,4})\s*(?:,\s*(\d{1,4})\s*)?", text)
    if not match:
        raise UsageError(f"reuse must look like 3 or 3,2, not {text!r}")
    return int(match[1]), int(match[2] or 1)


def parse_apg(text: str) -> tuple[float, float, float]:
    """`0,15,-0.5` as three numbers; UsageError for anything else."""
    try:
        parallel, limit, momentum = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"apg must be three numbers like 0,15,-0.5, not {text!r}") from None
    return parallel, limit, momentum


def parse_lora(text: str) -> Lora:
    """`cat.safetensors:0.8` as a file and its weight, which is 1 where none is given."""
    path, colon, weight = text.rpartition(":")
    try:
        return Lora(path, float(weight)) if colon else Lora(text)
    except ValueError:
        return Lora(text)


def parse_loras(texts: Sequence[str]) -> tuple[Lora, ...]:
    """Each of several."""
    return tuple(map(parse_lora, texts))


READERS: Mapping[str, Callable[[Any], Any]] = {
    "size": parse_size,
    "interval": parse_interval,
    "apg": parse_apg,
    "reuse": parse_reuse,
    "loras": parse_loras,
    "embeddings": tuple,
}
"""Fields that the command line and recipes give as text."""
