"""LoRA: a small file that bends the model towards what some pictures show (Hu et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from fromnoise.adapters import match, read_adapter
from fromnoise.hub import found
from fromnoise.pipeline import Pipeline
from fromnoise.request import Lora
from fromnoise.runtime.errors import UsageError
from fromnoise.training.tuning.factors import Factors, learning_factors, modules_of, write_factors
from fromnoise.training.tuning.keeping import Keeping, joined, keeping
from fromnoise.training.tuning.pictures import Captioned, read_captioned, require_captions
from fromnoise.training.tuning.running import How, Outcome, Result, begin, opened, tune
from fromnoise.training.tuning.samples import Pool, parted, quiet
from fromnoise.training.tuning.task import Noisy, Tuning, TuningTask
from fromnoise.training.tuning.words import spread, worded


@dataclass(frozen=True)
class Ranked(Tuning):
    """Settings of factors: `alpha` 0 is the rank, so that they act as they are; `layout` is "kohya" or "peft".

    `attention` leaves all of the U-Net but attention's projections as it is. `init` is a LoRA to go on from.
    """

    rank: int = 8
    alpha: float = 0.0
    dropout: float = 0.0
    text_encoder: bool = False
    attention: bool = False
    layout: str = "kohya"
    init: str = ""


@dataclass(frozen=True)
class LoraRecipe(Ranked):
    """Settings of a run.

    `caption` is every picture's; `token` stands in short templates; with neither the pictures bring captions. In each
    step as many states of `keep` drawings of the base model's own count `keep_weight` times as much as the pictures.
    All noise levels count alike, as grounds and darkness are decided at the noisiest, which Min-SNR all but leaves out.
    """

    caption: str = ""
    token: str = ""
    style: bool = False
    rank: int = 32
    keep: int = 256
    keep_weight: float = 2.0
    gamma: float = 0.0
    steps: int = 900
    patience: int = 16
    empty: float = 0.2


def train(
    pictures: Sequence[Path],
    run: Path,
    recipe: LoraRecipe,
    output: Path,
    **how: Unpack[How],
) -> Result:
    """Learn from pictures in the folder `run`; `output` is a file in the layout of `recipe`.

    Raises UsageError for pictures that can't be read or have no caption.
    """
    found = read_captioned(pictures)
    texts = captions_for(found, recipe)
    pipeline = opened(recipe)
    factors = new_factors(pipeline, recipe)
    begin(run, recipe, pictures, len(found), resume=how.get("resume", False))
    told = how.get("told", quiet)
    learnt, held = parted(pipeline, found, texts, flip=recipe.flip, told=told)
    kept = keeping(pipeline, run / "kept", recipe, recipe.keep, recipe.keep_weight, told)
    return tune(
        run,
        pipeline,
        learning_factors(pipeline, factors),
        outcome_of(factors, pipeline, recipe.layout),
        [Pool(learnt)],
        held,
        prompts_for(texts, recipe),
        recipe,
        output,
        kind=partial(KeepingTask, keeping=kept),
        **how,
    )


class KeepingTask(TuningTask):
    """Learns from the pictures, and as much from what the base model says to its own drawings."""

    def __init__(self, *parts: Any, keeping: Keeping | None) -> None:
        super().__init__(*parts)
        self.keeping = keeping

    def batch(self, step: int) -> Noisy:
        """The pictures of a step, and as many states to keep."""
        made = super().batch(step)
        if self.keeping is None:
            return made
        return joined(made, self.keeping.batch(self.recipe.seed, step, self.recipe.batch, self.processes))

    def made(self) -> Iterator[Tensor]:
        """The base model's answers too."""
        yield from super().made()
        if self.keeping is not None:
            yield self.keeping.answers


def new_factors(pipeline: Pipeline, recipe: Ranked, share: float = 1.0) -> Factors:
    """Factors for the U-Net, and for the text encoders where the recipe says so.

    Fresh ones, or those of the LoRA that it names, `share` times as strong.
    """
    parts = modules_of(pipeline)
    chosen = parts if recipe.text_encoder else {"unet": parts["unet"]}
    strength = recipe.alpha or recipe.rank
    made = Factors(chosen, recipe.rank, strength, recipe.dropout, recipe.seed, attention=recipe.attention)
    if recipe.init:
        made.take(match(read_adapter(found(recipe.init)), parts), share)
    return made


def outcome_of(factors: Factors, pipeline: Pipeline, layout: str) -> Outcome:
    """How the factors become a file, and a drawing uses it."""
    return Outcome(
        write=lambda path: write_factors(path, factors, pipeline, layout),
        fields=lambda path: {"loras": (Lora(str(path)),)},
    )


def captions_for(pictures: Sequence[Captioned], recipe: LoraRecipe) -> list[tuple[str, ...]]:
    """The captions of each picture; UsageError where there is none."""
    if recipe.caption and recipe.token:
        raise UsageError("give --caption or --token, not both")
    if recipe.caption:
        return [(recipe.caption,)] * len(pictures)
    if recipe.token:
        return [worded(each.caption, recipe.token, style=recipe.style) for each in pictures]
    require_captions(pictures, ", or give one --caption for all")
    return [(str(each.caption),) for each in pictures]


def prompts_for(texts: Sequence[tuple[str, ...]], recipe: LoraRecipe) -> tuple[str, ...]:
    """What is drawn on the way: three captions, and a control prompt, which should stay as it is."""
    if recipe.token and recipe.style:
        return (*(f"{each}, {recipe.token} style" for each in ("a cat", "a house", "a red apple")), "a cat")
    return (*spread((each[0] for each in texts), 3), "a cat")
