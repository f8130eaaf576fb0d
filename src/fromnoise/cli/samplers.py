"""`samplers`: which samplers and schedules there are, and when to use each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fromnoise.diffusion.samplers_table import SAMPLER_FACTS, SCHEDULE_FACTS
from fromnoise.request import SAMPLERS, SCHEDULES
from fromnoise.runtime.streams import is_terminal

PLAIN_WIDTH = 200
"""Columns where standard output is no terminal: enough that no line breaks."""


def samplers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the samplers with order, network calls a step and when to use each, and the schedules.

    Any sampler goes with any schedule; DPM fast and DPM adaptive use only a schedule's ends.

    For example:

    ```sh
    fromnoise samplers
    fromnoise "a red apple" --sampler unipc --schedule karras --steps 10
    ```
    """
    if as_json:
        listing = {"samplers": sampler_facts(), "schedules": schedule_facts()}
        print(json.dumps(listing, indent=2, ensure_ascii=False))
        return
    console = Console(width=None if is_terminal(sys.stdout) else PLAIN_WIDTH, highlight=False)
    rows = [
        (
            each["name"],
            _said(each["order"]),
            _said(each["calls"]),
            "yes" if each["deterministic"] else "no",
            each["use"],
        )
        for each in sampler_facts()
    ]
    console.print(_table(("sampler", "order", "calls a step", "deterministic", "use"), rows))
    console.print()
    console.print(_table(("schedule", "use"), [(each["name"], each["use"]) for each in schedule_facts()]))


def sampler_facts() -> list[dict[str, Any]]:
    """Every sampler's name, the name that other tools write, and its `SamplerFacts`."""
    return [{"name": name, "label": label, **asdict(SAMPLER_FACTS[name])} for name, label in SAMPLERS.items()]


def schedule_facts() -> list[dict[str, Any]]:
    """Every schedule's name, the name that other tools write, and use."""
    return [{"name": name, "label": label, "use": SCHEDULE_FACTS[name]} for name, label in SCHEDULES.items()]


def _said(number: int | None) -> str:
    return "-" if number is None else str(number)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, no_wrap=name != "use")
    for row in rows:
        table.add_row(*row)
    return table
