"""`train textual-inversion`, `lora`, `dreambooth`, `finetune`, `distill`: a model that knows you, or is faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fromnoise.cli import learning
from fromnoise.cli.console import progress, training_progress
from fromnoise.cli.merge import LoraLayout
from fromnoise.cli.options import shared_flags
from fromnoise.runtime.paths import FEW_STEPS

if TYPE_CHECKING:
    from fromnoise.training.tuning.running import Result

R = TypeVar("R")

Pictures = Annotated[
    list[Path],
    typer.Argument(metavar="PICTURES", help="Pictures, or a folder of them.", show_default=False),
]
Captioned = Annotated[
    list[Path],
    typer.Argument(
        metavar="PICTURES",
        help="A folder with a .txt beside each picture or a metadata.jsonl, a .jsonl or .csv file, "
        "or a folder that `datasets` saved.",
        show_default=False,
    ),
]
StyleFlag = Annotated[bool, typer.Option("--style", help="The pictures share a style, not a subject.")]
RankFlag = Annotated[
    int | None, typer.Option("--rank", metavar="N", min=1, help="Numbers a position.", show_default="the recipe's")
]
AlphaFlag = Annotated[
    float | None, typer.Option("--alpha", metavar="A", help="Strength; acts as A / rank.", show_default="the rank")
]
TextFlag = Annotated[bool, typer.Option("--text-encoder", help="The text encoder learns too.")]
InitFlag = Annotated[
    Path | None, typer.Option("--init", metavar="FILE", help="A LoRA to go on from.", show_default="a fresh one")
]
LayoutFlag = Annotated[LoraLayout | None, typer.Option("--layout", help="Key names to write.", show_default="kohya")]


@dataclass(frozen=True)
class Learning:
    """What every trainer can be told; None where a flag was not given, so that the recipe's own default holds."""

    model: Annotated[
        str | None,
        typer.Option("--model", metavar="PATH", help="The base: a folder or file.", show_default="the embedded model"),
    ] = None
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=1, help="Steps at the most.", show_default="the recipe's")
    ] = None
    batch: Annotated[
        int | None, typer.Option("--batch", metavar="N", min=1, help="Pictures a step.", show_default="the recipe's")
    ] = None
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="R", help="Learning rate.", show_default="the recipe's")
    ] = None
    flip: Annotated[bool, typer.Option("--flip", help="Learn mirrored pictures too.")] = False
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience", metavar="N", min=1, help="Checks without gain until it stops.", show_default="recipe's"
        ),
    ] = None
    most_drift: Annotated[
        float | None,
        typer.Option("--most-drift", metavar="D", min=0, help="It stops farther from the base.", show_default="any"),
    ] = None
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute parts of the network twice: less memory, more time.")
    ] = False
    track: Annotated[bool, typer.Option("--track", help="Write curves and pictures for TensorBoard.")] = False
    sample_every: Annotated[
        int | None,
        typer.Option(
            "--sample-every", metavar="N", min=0, help="Steps between sample pictures; 0 is none.",
            show_default="the recipe's",
        ),
    ] = None  # fmt: skip
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", min=0, show_default="0")] = None
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE", help="TOML that replaces fields of the recipe.")
    ] = None
    run: Annotated[
        Path | None, typer.Option("--run", metavar="FOLDER", help="Checkpoints, log and samples.",
                                  show_default="runs/TRAINER-NAME")
    ] = None  # fmt: skip
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there already.")] = False

    def settled(self, default: R, **own: Any) -> R:
        """The recipe with the file's fields, then with the flags that were given; UsageError for a bad value."""
        from fromnoise.training.recipe import read_recipe, require_allowed

        names = [each.name for each in fields(self) if each.name not in ("recipe", "run", "resume", "overwrite")]
        flags = {**{name: getattr(self, name) for name in names}, **own}
        given = {name: value for name, value in flags.items() if value is not None and value is not False}
        require_allowed(default, given, _flag)
        return replace(read_recipe(default, self.recipe), **given)  # type: ignore[type-var]


@shared_flags()
def textual_inversion(
    pictures: Pictures,
    token: Annotated[str, typer.Option("--token", metavar="WORD", help="The new word: my-cat in angle brackets, say.")],
    init: Annotated[str, typer.Option("--init", metavar="WORD", help="A word that says roughly what it is.")],
    asked: Learning,
    vectors: Annotated[
        int | None, typer.Option("--vectors", metavar="N", min=1, max=32, help="Vectors it has.", show_default="2")
    ] = None,
    style: StyleFlag = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", show_default="RUN/TOKEN.safetensors")
    ] = None,
) -> None:
    """Teach the model one new word from a handful of pictures. No weight of the model changes.

    The file works here (`--embedding`) and in other tools. For example:

    ```sh
    fromnoise train textual-inversion my-cat/ --token "<my-cat>" --init cat
    fromnoise train textual-inversion art/*.png --token "<ink>" --init drawing --style -o ink.safetensors
    fromnoise "a picture of <ink>" --embedding ink.safetensors
    ```
    """
    from fromnoise.training.tuning.inversion import InversionRecipe, train
    from fromnoise.training.tuning.running import require_free, slug

    recipe = asked.settled(InversionRecipe(), token=token, init=init, vectors=vectors, style=style)
    run = asked.run or Path("runs") / f"textual-inversion-{slug(token)}"
    place = _place(output, run / f"{slug(token)}.safetensors", asked, require_free)
    _learn("textual inversion", train, pictures, run, recipe, place, asked)


@shared_flags()
def lora(
    pictures: Captioned,
    asked: Learning,
    caption: Annotated[str | None, typer.Option("--caption", metavar="WORDS", help="One caption for all.")] = None,
    token: Annotated[str | None, typer.Option("--token", metavar="WORD", help="Put into short templates.")] = None,
    style: StyleFlag = False,
    rank: RankFlag = None,
    alpha: AlphaFlag = None,
    dropout: Annotated[float | None, typer.Option("--dropout", metavar="0-1", min=0, max=0.9)] = None,
    text_encoder: TextFlag = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Of the U-Net only attention's projections learn.")
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="N", min=0, help="Drawings of its own that the model keeps.", show_default="the recipe's"
        ),
    ] = None,
    init: InitFlag = None,
    layout: LayoutFlag = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", show_default="RUN/lora.safetensors")
    ] = None,
) -> None:
    """Train a LoRA: a small file that bends the model towards what the pictures show.

    Captions come from --caption, from --token, or from the files beside the pictures. For example:

    ```sh
    fromnoise train lora pixel-art/ --token pixelart --style -o pixelart.safetensors
    fromnoise train lora my-cat/ --caption "a picture of mycat" --rank 16 --alpha 8 --layout peft
    fromnoise "a fox, pixelart style" --lora pixelart.safetensors --guidance 2
    ```
    """
    from fromnoise.training.tuning.lora import LoraRecipe, train
    from fromnoise.training.tuning.running import require_free, slug

    recipe = asked.settled(
        LoraRecipe(), caption=caption, token=token, style=style, rank=rank, alpha=alpha, dropout=dropout,
        text_encoder=text_encoder, attention=attention, keep=keep, init=init and str(init),
        layout=layout and layout.value,
    )  # fmt: skip
    run = asked.run or Path("runs") / f"lora-{slug(token or pictures[0].stem)}"
    place = _place(output, run / "lora.safetensors", asked, require_free)
    _learn("LoRA", train, pictures, run, recipe, place, asked)


@shared_flags()
def finetune(
    pictures: Captioned,
    asked: Learning,
    average: Annotated[
        int | None, typer.Option("--average", metavar="N", min=0, help="Steps averaged over.", show_default="200")
    ] = None,
    empty: Annotated[
        float | None, typer.Option("--empty", metavar="0-1", help="Captions left out.", show_default="0.1")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option("--gamma", metavar="G", help="Min-SNR's gamma; 0 for none.", show_default="5")
    ] = None,
    noise_offset: Annotated[
        float | None, typer.Option("--noise-offset", metavar="S", help="0.05 allows darker pictures.", show_default="0")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PLACE", help="A folder or .safetensors.", show_default="RUN/model"),
    ] = None,
) -> None:
    """Fine-tune the whole U-Net on captioned pictures, and write a model of its own.

    Pictures keep their shapes, in batches of similar ones. For example:

    ```sh
    fromnoise train finetune monsters/ -o monsters-model/
    fromnoise train finetune monsters/captions.csv --steps 2000 --batch 8 --flip
    fromnoise "a green slime" --model monsters-model/
    ```
    """
    from fromnoise.training.tuning.finetune import FinetuneRecipe, require_free_model, train
    from fromnoise.training.tuning.running import slug

    recipe = asked.settled(FinetuneRecipe(), average=average, empty=empty, gamma=gamma, noise_offset=noise_offset)
    run = asked.run or Path("runs") / f"finetune-{slug(pictures[0].stem)}"
    place = _place(output, run / "model", asked, require_free_model)
    _learn("fine-tuning", train, pictures, run, recipe, place, asked, own=output is None)


@shared_flags()
def dreambooth(
    pictures: Pictures,
    token: Annotated[str, typer.Option("--token", metavar="WORD", help="A rare word for the subject, sks say.")],
    subject: Annotated[str, typer.Option("--class", metavar="WORD", help="What the subject is, dog say.")],
    asked: Learning,
    as_lora: Annotated[bool, typer.Option("--lora", help="Train a LoRA, not the whole U-Net.")] = False,
    class_pictures: Annotated[
        int | None,
        typer.Option("--class-pictures", metavar="N", min=0, help="Drawn to keep the class.", show_default="40"),
    ] = None,
    prior: Annotated[
        float | None, typer.Option("--prior", metavar="W", help="How much they count.", show_default="1")
    ] = None,
    rank: RankFlag = None,
    alpha: AlphaFlag = None,
    text_encoder: TextFlag = False,
    init: InitFlag = None,
    layout: LayoutFlag = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PLACE", show_default="RUN/model, with --lora RUN/lora.safetensors"),
    ] = None,
) -> None:
    """Teach the model one subject by a rare word, and keep what its class means by pictures that the model draws first.

    For example:

    ```sh
    fromnoise train dreambooth my-dog/ --token sks --class dog --lora -o my-dog.safetensors
    fromnoise train dreambooth my-dog/ --token sks --class dog --class-pictures 100 -o my-dog-model/
    fromnoise "a drawing of a sks dog" --lora my-dog.safetensors
    ```
    """
    from fromnoise.training.tuning.dreambooth import DreamboothRecipe, train
    from fromnoise.training.tuning.finetune import require_free_model
    from fromnoise.training.tuning.running import require_free, slug

    recipe = asked.settled(
        DreamboothRecipe(), token=token, subject=subject, lora=as_lora, class_pictures=class_pictures, prior=prior,
        rank=rank, alpha=alpha, text_encoder=text_encoder, init=init and str(init), layout=layout and layout.value,
    )  # fmt: skip
    run = asked.run or Path("runs") / f"dreambooth-{slug(token)}"
    own, check = ("lora.safetensors", require_free) if as_lora else ("model", require_free_model)
    place = _place(output, run / own, asked, check)
    _learn("DreamBooth", train, pictures, run, recipe, place, asked, own=output is None)


@shared_flags(without=("flip",))
def distill(
    asked: Learning,
    prompts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PROMPTS",
            help="A .txt file with a prompt on each line, or captioned pictures, of which the captions are read.",
            show_default="the concepts that the embedded model knows",
        ),
    ] = None,
    jumps: Annotated[
        int | None, typer.Option("--jumps", metavar="N", min=1, help="Steps to draw in afterwards.", show_default="4")
    ] = None,
    teacher_steps: Annotated[
        int | None,
        typer.Option("--teacher-steps", metavar="N", min=1, help="The teacher's; N times --jumps.", show_default="8"),
    ] = None,
    trajectories: Annotated[
        int | None,
        typer.Option("--trajectories", metavar="N", min=1, help="Drawings of the teacher.", show_default="1600"),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", metavar="SCALE", help="The teacher's.", show_default="the model's own")
    ] = None,
    rank: RankFlag = None,
    init: InitFlag = None,
    layout: LayoutFlag = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", show_default="RUN/fast.safetensors")
    ] = None,
) -> None:
    """Distil: a LoRA with which the model draws in 4 steps without guidance what took 25 guided ones.

    No pictures are needed: the model draws what is learnt from. Lay the file into the model's folder as
    `fast.safetensors`, or beside its file as `NAME.fast.safetensors`, and `--fast` uses it. For example:

    ```sh
    fromnoise train distill -o fast.safetensors
    fromnoise train distill prompts.txt --model SD15/ --teacher-steps 24 --batch 4 -o SD15/fast.safetensors
    fromnoise "a fox" --model SD15/ --fast
    ```
    """
    from fromnoise.training.tuning.distill import DistillRecipe, train
    from fromnoise.training.tuning.running import require_free

    recipe = asked.settled(
        DistillRecipe(), jumps=jumps, teacher_steps=teacher_steps, trajectories=trajectories, guidance=guidance,
        rank=rank, init=init and str(init), layout=layout and layout.value,
    )  # fmt: skip
    run = asked.run or Path("runs") / "distill"
    place = _place(output, run / FEW_STEPS, asked, require_free)
    with progress("the teacher's drawings") as told, training_progress("distilling") as show:
        _tell(train(prompts or [], run, recipe, place, resume=asked.resume, told=told, show=show))


COMMANDS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "textual-inversion": textual_inversion,
        "lora": lora,
        "dreambooth": dreambooth,
        "finetune": finetune,
        "distill": distill,
        **learning.PARTS,
    }
)


_TRAIN = """Train: teach the model your own pictures, or make every part of it from scratch.

For example:

```sh
fromnoise train lora pixel-art/ --token pixelart --style -o pixelart.safetensors
fromnoise train textual-inversion my-cat/ --token "<my-cat>" --init cat
```
"""


def train_commands() -> typer.Typer:
    """`fromnoise train` with its commands: first those for a model that is there, then those from scratch."""
    app = typer.Typer(
        help=_TRAIN,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    for name, command in COMMANDS.items():
        app.command(name)(command)
    return app


def _flag(field: str) -> str:
    """What the flag of a recipe's field is called."""
    return f"--{'class' if field == 'subject' else field.replace('_', '-')}"


def _place(output: Path | None, own: Path, asked: Learning, check: Callable[..., Path]) -> Path:
    """Where the result goes: the run folder's own file may be replaced, another one only when allowed."""
    return own if output is None else check(output, overwrite=asked.overwrite)


def _learn(
    what: str,
    train: Callable[..., Result],
    pictures: list[Path],
    run: Path,
    recipe: Any,
    place: Path,
    asked: Learning,
    *,
    own: bool = False,
) -> None:
    """Train with progress of reading pictures, then of training. The run's own model may be replaced."""
    overwrite = asked.overwrite or own
    with progress("reading pictures") as told, training_progress(what) as show:
        _tell(train(pictures, run, recipe, place, resume=asked.resume, told=told, show=show, overwrite=overwrite))


def _tell(result: Result) -> None:
    """The result's place; of several processes one says it."""
    from fromnoise.training.processes import launched

    if launched().main:
        print(result.path)
