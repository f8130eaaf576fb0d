"""`pull`, `push` and `models`: what comes from the hub, what goes there, and what is here."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fromnoise.cli.console import progress, say
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.streams import is_terminal

if TYPE_CHECKING:
    from fromnoise.hub.inventory import Model
    from fromnoise.hub.pulling import Fetched
    from fromnoise.hub.pushing import Plan

MEGABYTE = 1_000_000
SHORT = 10
"""Digits of a hash where a person reads."""

TURN_S = 0.1
"""How long the keyboard is waited for at a time."""

NameArgument = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A repository on the hub.", show_default=False)]


def pull(
    name: NameArgument,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="A branch, tag or commit.", show_default="main")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file", metavar="PATTERN", help="Only such files, as *.safetensors; repeatable.", show_default="the model"
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="Weights as fp16, say.", show_default="full")
    ] = None,
) -> None:
    """Fetch a model or an adapter from the hub, and print where it is. Only what drawing needs comes.

    Ctrl-C stops it, the same command goes on where it was. Every file is checked by its hash, none is ever run. They
    lie in the hub client's own cache (HF_HOME), which other tools use, too. Private and gated models need `hf auth
    login` or HF_TOKEN.

    For example:

    ```sh
    fromnoise pull stable-diffusion-v1-5/stable-diffusion-v1-5 --variant fp16
    fromnoise "a wolf" --model stable-diffusion-v1-5/stable-diffusion-v1-5
    fromnoise pull some-one/watercolour --file watercolour.safetensors
    fromnoise "a wolf" --lora some-one/watercolour:0.8
    ```
    """
    from fromnoise.hub.names import require_name
    from fromnoise.hub.pulling import pull as fetch

    wanted = require_name(name, revision)
    with progress(f"pulling {wanted.repository} (MB)") as advance:
        fetched = fetch(
            wanted,
            patterns=files or (),
            variant=variant,
            show=lambda done, total: advance(done // MEGABYTE, total // MEGABYTE),
        )
    _tell(fetched)
    print(fetched.here.model or fetched.here.folder)


def _tell(fetched: Fetched) -> None:
    here = f"{fetched.here.repository} at {fetched.here.commit[:SHORT]}: {_megabytes(fetched.size)}"
    if not fetched.checked:
        say(f"{here}, pulled before; the hub can't be asked whether there is something newer", logging.WARNING)
        return
    came = f"{_megabytes(fetched.fetched)} fetched" if fetched.fetched else "already here"
    say(f"{here}, {came}, every hash is right; licence: {fetched.licence or 'none stated, so ask before you use it'}")


def push(
    source: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A model or training run, or an adapter's file.", show_default=False),
    ],
    name: NameArgument,
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    licence: Annotated[
        str | None,
        typer.Option("--licence", "--license", metavar="NAME", help="As apache-2.0.", show_default="as the files say"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="WORDS", help="What it was trained on.", show_default="as the files say"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="The run it comes from: recipe, log, pictures go along."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be published, and stop.")] = False,
) -> None:
    """Publish a model, an adapter or an embedding on the hub, and print its address.

    Of a training run's folder it is the result, recipe, log and sample pictures. Where there is no README.md, a model
    card is made: parts, training data, settings, figures, licence, sample pictures, as far as the files tell.
    Pickles are refused. Needs `hf auth login` or HF_TOKEN.

    For example:

    ```sh
    fromnoise push my-model/ me/my-model --licence apache-2.0 --dry-run
    fromnoise push watercolour.safetensors me/watercolour --licence cc-by-4.0 --private
    fromnoise push runs/lora-pixelart me/pixelart --licence mit --data "64 sprites of my own"
    ```
    """
    from fromnoise.hub.names import require_name
    from fromnoise.hub.pushing import plan
    from fromnoise.hub.pushing import push as publish

    target = require_name(name)
    if target.file or str(target) != target.repository:
        raise UsageError(f"{name!r} names more than a repository; publish to {target.repository}")
    source, run = source.expanduser(), run and run.expanduser()
    prepared = plan(source, target.repository, licence or _asked(source), data=data, run=run)
    if dry_run:
        _show_plan(prepared)
        return
    _bars_for_people()
    print(publish(prepared, private=private))


def _bars_for_people() -> None:
    """The hub's client draws its own bars while it sends; where standard error is no terminal, there are none."""
    from huggingface_hub.utils import disable_progress_bars

    if not is_terminal(sys.stderr):
        disable_progress_bars()


def _asked(source: Path) -> str | None:
    """The licence that the person types when the files state none and somebody sits there."""
    from fromnoise.hub.pushing import NO_LICENCE, stated_licence

    if stated_licence(source) or not is_terminal(sys.stdin):
        return None
    say(NO_LICENCE)
    line = "\n"
    try:
        while line and not line.strip():
            line = _typed("licence: ")
    except KeyboardInterrupt:
        print(file=sys.stderr)  # what is said next gets a line of its own
        raise
    return line.strip() or None


def _typed(question: str) -> str:
    """A line from the keyboard; nothing at its end (Ctrl-D).

    Waited for in short turns: `input` would not notice a Ctrl-C that comes just before it begins to wait.
    """
    print(question, end="", file=sys.stderr, flush=True)
    while os.name == "posix" and not select.select([sys.stdin], [], [], TURN_S)[0]:
        pass
    return sys.stdin.readline()


def _show_plan(prepared: Plan) -> None:
    """The files and the card, on standard output."""
    for name, path in prepared.files.items():
        print(f"{name}\t{path.stat().st_size}")
    if prepared.card is not None:
        print(f"README.md\t{len(prepared.card.encode())}\tmade for it:\n\n{prepared.card}")
    say(f"{len(prepared.files)} files, {_megabytes(prepared.size)}, for {prepared.repository}; nothing was sent")


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and all of it.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and compare its hash.")] = False,
    loras: Annotated[
        Path | None, typer.Option("--loras", metavar="FOLDER", help="List the adapters in it, too.")
    ] = None,
) -> None:
    """List the models and adapters that are here: from where, how large, licence, hash.

    For example:

    ```sh
    fromnoise models
    fromnoise models --verify
    fromnoise models --loras ~/loras --json
    ```
    """
    from fromnoise.hub.inventory import models as listed

    found = listed(loras.expanduser() if loras else None)
    with progress("hashing (MB)") as advance:
        rows = _rows(found, verify, advance)
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print_table(rows)
    if bad := [row["name"] for row in rows if row.get("damaged")]:
        raise FromnoiseError(f"damaged: {', '.join(bad)}; `fromnoise pull OWNER/NAME` mends what came from the hub")


def _rows(found: Sequence[Model], verify: bool, advance: Any) -> list[dict[str, Any]]:
    """Everything about each model, as JSON has it."""
    from fromnoise.hub.inventory import damage

    total, done = sum(each.size for each in found), 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        advance(min(done, total) // MEGABYTE, total // MEGABYTE)

    rows = []
    for model in found:
        row = {
            "name": model.name,
            "kind": model.kind,
            "from": model.source,
            "bytes": model.size,
            "licence": model.licence,
            "sha256": None if model.state else model.hash(told),
            "path": str(model.path) if model.files else None,
            "state": model.state,
        }
        rows.append({**row, **(_verdict(damage(model, told), len(model.recorded)) if verify else {})})
    return rows


def _verdict(damaged: list[str], recorded: int) -> dict[str, Any]:
    state = f"damaged: {', '.join(damaged)}" if damaged else f"{recorded} hashes right" if recorded else "no hash known"
    return {"state": state, "damaged": damaged, "compared": recorded}


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="")
    for head in ("name", "kind", "from", "size", "licence", "hash", ""):
        table.add_column(head, justify="right" if head == "size" else "left", overflow="fold")
    for row in rows:
        size, short = _megabytes(row["bytes"]), (row["sha256"] or "")[:SHORT]
        table.add_row(row["name"], row["kind"], row["from"], size, row["licence"] or "not stated", short, row["state"])
    Console(highlight=False, markup=False, soft_wrap=not is_terminal(sys.stdout)).print(table)


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:.1f} MB"
