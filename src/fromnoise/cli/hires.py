"""`--hires`: the flags of the second pass at a larger size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from fromnoise.request import UPSCALERS, Hires
from fromnoise.runtime.errors import UsageError


@dataclass(frozen=True)
class HiresFlags:
    """The second pass; None where a flag was not given."""

    hires: Annotated[
        float | None,
        typer.Option("--hires", metavar="SCALE", help="Then draw it so many times as large in a second pass, as 2."),
    ] = None
    hires_upscaler: Annotated[
        str | None,
        typer.Option(
            "--hires-upscaler",
            metavar="NAME",
            help=f"What enlarges it: {', '.join(UPSCALERS)}.",
            show_default=Hires.upscaler,
        ),
    ] = None
    hires_strength: Annotated[
        float | None,
        typer.Option(
            "--hires-strength",
            metavar="0-1",
            help="How far the second pass leaves the small picture.",
            show_default=f"{Hires.strength:g}",
        ),
    ] = None
    hires_steps: Annotated[
        int | None,
        typer.Option(
            "--hires-steps",
            metavar="N",
            help="Steps run in the second pass.",
            show_default="the strength's share of --steps",
        ),
    ] = None

    def second_pass(self) -> Hires | None:
        """What they ask for; None without --hires, UsageError for the others without it."""
        details = {"upscaler": self.hires_upscaler, "strength": self.hires_strength, "steps": self.hires_steps}
        said = {key: value for key, value in details.items() if value is not None}
        if self.hires is None and said:
            raise UsageError(f"--hires-{next(iter(said))} goes with --hires SCALE; give both")
        return None if self.hires is None else Hires(scale=self.hires, **said)
