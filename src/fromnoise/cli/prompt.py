"""`prompt`: how a prompt is read, before anything is drawn."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.hub import found
from fromnoise.request import EMBEDDED_STEPS, MAX_SEED, USUAL_STEPS, WEIGHTINGS
from fromnoise.runtime import checks
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.runtime.streams import is_terminal

if TYPE_CHECKING:
    from fromnoise.text.linting import Moment, Piece, Report
    from fromnoise.text.tokenizer import Tokenizer
    from fromnoise.text.wildcards import Resolved

TOKENIZERS = ("tokenizer", "tokenizer_2")
SHOWN_RUNS = 6
"""Runs of steps named where a person reads."""


def prompt(
    words: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt, in quotes.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="PATH", help="A Stable Diffusion folder or file.", show_default="the embedded model"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            help="Sampling steps.",
            min=1,
            max=1000,
            show_default=f"{EMBEDDED_STEPS}, with --model {USUAL_STEPS}",
        ),
    ] = None,
    weighting: Annotated[
        str, typer.Option("--weighting", metavar="TOOL", help=f"Whose grammar: {', '.join(WEIGHTINGS)}.")
    ] = "a1111",
    wildcards: Annotated[
        Path | None, typer.Option("--wildcards", metavar="FOLDER", help="Where animal.txt is for `__animal__`.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="What choices are drawn by.", min=0, max=MAX_SEED)
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and all of it.")] = False,
) -> None:
    """Show how a prompt is read: which word falls into which chunk, what weighs what, what is cut, what is odd.

    For example:

    ```sh
    fromnoise prompt "a (red:1.3) apple, [noto:twemoji:0.5] style"
    fromnoise prompt "a {red|green} __animal__" --wildcards ~/wildcards --seed 7
    fromnoise prompt "a wolf, (oil painting)" --model ~/models/sdxl --json
    ```
    """
    from fromnoise.text.linting import lint
    from fromnoise.text.wildcards import resolve

    checks.text("prompt", words)
    if wildcards is not None and not (wildcards := wildcards.expanduser()).is_dir():
        raise UsageError(f"there is no folder at {wildcards}")
    resolved = resolve(words, seed, wildcards)
    steps = steps or (EMBEDDED_STEPS if model is None else USUAL_STEPS)
    report = lint(resolved.text, tokenizers_of(model), steps=steps, weighting=weighting)
    if as_json:
        choices = [asdict(each) for each in resolved.choices]
        print(json.dumps({"asked": words, **asdict(report), "choices": choices}, indent=2, ensure_ascii=False))
    elif is_terminal(sys.stdout):
        _show(report, resolved)
    else:
        print("\n".join(_lines(report, resolved)))


def tokenizers_of(model: str | None) -> list[Tokenizer]:
    """The tokenizers of a Stable Diffusion folder or file, read without its weights; UsageError when it has none."""
    from fromnoise.text.tokenizer import Tokenizer

    path = EMBEDDED_MODEL if model is None else found(model)
    folders = [path / name for name in TOKENIZERS if (path / name).is_dir()]
    tokenizers = _tokenizers_in(path) if path.is_file() else [Tokenizer.read(folder) for folder in folders]
    if not tokenizers:
        raise UsageError(f"no Stable Diffusion model at {path} (it has no tokenizer)")
    return tokenizers


def _tokenizers_in(path: Path) -> list[Tokenizer]:
    """The tokenizers of a single file: its own, or CLIP's."""
    from fromnoise.checkpoints import open_checkpoint
    from fromnoise.checkpoints.tokenizers import tokenizer_of

    checkpoint = open_checkpoint(path)
    return [tokenizer_of(checkpoint, name) for name in checkpoint.tokenizers]


@dataclass(frozen=True)
class _Row:
    """A chunk as a person reads it: whose it is, and its words with their weights."""

    part: str
    encoder: str
    chunk: str
    words: tuple[tuple[str, float], ...]


def _rows(moment: Moment) -> Iterator[_Row]:
    """The chunks in order; encoders that read the same share a row."""
    for part in moment.parts:
        alike: dict[Any, list[str]] = {}
        for reading in part.encoders:
            alike.setdefault((reading.chunks, reading.room), []).append(reading.encoder)
        for (chunks, room), encoders in alike.items():
            for number, chunk in enumerate(chunks, 1):
                said = f"{number} ({len(chunk)} of {room})"
                yield _Row(f"{part.weight:g}", ", ".join(encoders), said, tuple(_words(chunk)))


def _words(chunk: Sequence[Piece]) -> Iterator[tuple[str, float]]:
    from fromnoise.text.linting import spelling, words

    for word in words(chunk):
        yield spelling(word), word[0].weight


def _facts(report: Report, resolved: Resolved) -> Iterator[tuple[str, str]]:
    """What is worth saying beside the words."""
    if resolved.choices:
        yield "chosen", "; ".join(f"{each.source} = {each.text}" for each in resolved.choices)
    for adapter in report.adapters:
        yield "adapter", f"{adapter.kind} {adapter.name}, text encoder {adapter.text:g}, U-Net {adapter.unet:g}"
    if report.changes:
        yield "changes", f"before step {_runs(report.changes)} of {report.steps}"
    if report.pieced:
        yield "in pieces", " ".join(report.pieced)
    for remark in report.remarks:
        yield "remark", remark


def _lines(report: Report, resolved: Resolved) -> Iterator[str]:
    """The report as plain text."""
    for moment in report.moments:
        yield f"steps {_runs(moment.steps)}"
        for row in _rows(moment):
            words = " ".join(word if weight == 1 else f"{word}×{weight:.4g}" for word, weight in row.words)
            weight = "" if len(moment.parts) == 1 and row.part == "1" else f"part of weight {row.part}, "
            yield f"  {weight}{row.encoder}, chunk {row.chunk}: {words}"
    yield from (f"{head}: {text}" for head, text in _facts(report, resolved))


def _show(report: Report, resolved: Resolved) -> None:
    """The report as tables on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for moment in report.moments:
        table = Table("part", "encoder", "chunk", "words", title=f"steps {_runs(moment.steps)}", title_justify="left")
        for row in _rows(moment):
            words = (each for word, weight in row.words for each in (_styled(word, weight), " "))
            table.add_row(row.part, row.encoder, row.chunk, Text.assemble(*words))
        console.print(table)
    for head, text in _facts(report, resolved):
        console.print(Text.assemble((head, "bold"), ": ", text))


def _styled(word: str, weight: float) -> tuple[str, str]:
    """A word and how it looks: heavier ones bold, lighter ones dim."""
    if weight == 1:
        return word, ""
    return f"{word}×{weight:.4g}", "bold yellow" if weight > 1 else "dim cyan"


def _runs(steps: Sequence[int]) -> str:
    """Steps as runs: "1-12, 14"."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and runs[-1][-1] == step - 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    said = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return ", ".join(said[:SHOWN_RUNS]) + (", …" if len(said) > SHOWN_RUNS else "")
