"""`merge` and `extract`: checkpoints made one, and a LoRA made of what two differ in."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli.console import progress, say
from fromnoise.cli.options import OverwriteFlag
from fromnoise.hub import found
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import require_writable

if TYPE_CHECKING:
    from fromnoise.adapters import Extracted


class LoraLayout(StrEnum):
    """Whose names the keys of a LoRA file have."""

    KOHYA = "kohya"
    PEFT = "peft"


def merge(
    first: Annotated[Path, typer.Argument(metavar="A", help="A checkpoint: a folder or a file.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another of the same family.", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="A .safetensors file or a folder.", show_default=False)
    ],
    third: Annotated[
        Path | None, typer.Argument(metavar="[C]", help="What to take from B first.", show_default="none")
    ] = None,
    weight: Annotated[float, typer.Option("--weight", metavar="W", help="How much B counts.")] = 0.5,
    overwrite: OverwriteFlag = False,
) -> None:
    """Merge two checkpoints into (1 - W) A + W B, or three into A + W (B - C).

    The second form gives A what B learned beyond C. Scheduler, tokenizer and number format are A's. Tensors are read
    and written one at a time, so that memory never holds a checkpoint.

    For example:

    ```sh
    fromnoise merge realistic.safetensors painted.safetensors -o both.safetensors --weight 0.3
    fromnoise merge my-model/ tuned.safetensors base.safetensors -o my-tuned-model/ --weight 1
    ```
    """
    from fromnoise.adapters import merged
    from fromnoise.checkpoints import open_checkpoint
    from fromnoise.checkpoints.convert import write_checkpoint
    from fromnoise.checkpoints.destinations import require_other

    output = output.expanduser()
    checkpoints = [open_checkpoint(found(each)) for each in (first, second, third) if each is not None]
    made = merged(checkpoints, weight)
    for each in checkpoints:
        require_other(each.path, output)
    with progress("merging") as show:
        write_checkpoint(made, output, overwrite=overwrite, progress=show)
    print(output)


def extract(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The checkpoint before.", show_default=False)],
    tuned: Annotated[Path, typer.Argument(metavar="TUNED", help="The checkpoint after.", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A .safetensors file.", show_default=False)
    ],
    rank: Annotated[int, typer.Option("--rank", metavar="N", min=1, help="Numbers a position in each layer.")] = 16,
    layout: Annotated[LoraLayout, typer.Option("--layout", help="Whose key names to write.")] = LoraLayout.KOHYA,
    overwrite: OverwriteFlag = False,
) -> None:
    """Make a LoRA of what two checkpoints differ in, and say how much of it the LoRA leaves out.

    The error is relative to the whole difference: 0 % is all of it, 100 % is nothing. A higher rank leaves less.

    For example:

    ```sh
    fromnoise extract base.safetensors tuned.safetensors -o tuned-lora.safetensors --rank 16
    fromnoise extract base/ tuned/ -o tuned-lora.safetensors --rank 64 --layout peft
    ```
    """
    from fromnoise.adapters import extract as extracted
    from fromnoise.adapters import write_lora
    from fromnoise.adapters.families import family_of_config
    from fromnoise.checkpoints import open_checkpoint
    from fromnoise.checkpoints.destinations import is_single, require_free, require_other

    output = output.expanduser()
    if not is_single(output):
        raise UsageError(f"{output}: a LoRA is written as safetensors; choose a name that ends in .safetensors")
    require_free(output, overwrite)
    before, after = (open_checkpoint(found(each)) for each in (base, tuned))
    for each in (before, after):
        require_other(each.path, output)
    require_writable(output)
    with progress("extracting") as show:
        made = extracted(before, after, rank, told=show)
    family = family_of_config(before.parts["unet"].config) if "unet" in before.parts else None
    write_lora(output, made.loras, layout.value, family=family)
    _report(made)
    print(output)


def _report(made: Extracted) -> None:
    """The error that each part and the whole are left with, on standard error."""
    for part, left in made.left.items():
        layers, beyond = len(made.loras.get(part, ())), made.beyond[part]
        said = f", {(beyond.differed / left.differed) ** 0.5:.1%} in what no LoRA can change" if beyond.differed else ""
        say(f"{part}: {layers} layers, relative error {left.error:.1%}{said}" if left.differed else f"{part}: the same")
    say(f"all: {made.layers} layers, relative error {made.error:.1%}")
