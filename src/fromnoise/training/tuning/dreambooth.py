"""DreamBooth: a subject gets a rare word, and its class keeps its meaning (Ruiz et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from fromnoise.pipeline import Pipeline
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write
from fromnoise.training.claims import claim
from fromnoise.training.processes import launched
from fromnoise.training.tuning.factors import Factors, learning_factors
from fromnoise.training.tuning.finetune import learning_unet, model_outcome
from fromnoise.training.tuning.lora import Ranked, new_factors, outcome_of
from fromnoise.training.tuning.pictures import Captioned, read_captioned
from fromnoise.training.tuning.running import How, Outcome, Result, begin, opened, tune
from fromnoise.training.tuning.samples import Pool, Sample, Told, encoded, parted, quiet
from fromnoise.training.tuning.task import Learns
from fromnoise.training.tuning.words import require_sayable

RATES = {True: 1e-3, False: 5e-5}
"""The rate of a LoRA, and of the whole U-Net."""

FIRST_SEED = 1000
"""Of the class pictures, away from those that are drawn to look at."""


@dataclass(frozen=True)
class DreamboothRecipe(Ranked):
    """Settings of a run: `token` names the subject, `subject` its class.

    `class_pictures` drawn by the base model count `prior` times as much as the subject's; 0 of them is without prior
    preservation. `rate` 0 is that of RATES. With `lora` the result is an adapter, else a whole model.
    """

    token: str = ""
    subject: str = ""
    class_pictures: int = 40
    prior: float = 1.0
    lora: bool = False
    batch: int = 2
    rate: float = 0.0


def train(
    pictures: Sequence[Path],
    run: Path,
    recipe: DreamboothRecipe,
    output: Path,
    **how: Unpack[How],
) -> Result:
    """Learn a subject in the folder `run`, whose `class` folder keeps the class pictures.

    Raises UsageError for pictures that can't be read, and for a token or a class that can't stand in a prompt.
    """
    found = read_captioned(pictures)
    require_sayable(recipe.token)
    if not recipe.subject.strip():
        raise UsageError("say what the pictures show: --class dog, say")
    if recipe.init and not recipe.lora:
        raise UsageError("init is a LoRA to go on from; give --lora, or leave it out")
    pipeline = opened(recipe, whole=not recipe.lora)
    factors = new_factors(pipeline, recipe) if recipe.lora else None
    begin(run, recipe, pictures, len(found), resume=how.get("resume", False))
    learnt, held = parted(pipeline, found, [subject_captions(recipe)] * len(found), flip=recipe.flip)
    pools = [Pool(learnt)]
    if recipe.class_pictures:
        pools.append(Pool(class_samples(pipeline, run / "class", recipe, how.get("told", quiet)), recipe.prior))
    learns, outcome = _learning(pipeline, factors, recipe.layout, how.get("overwrite", False))
    return tune(
        run,
        pipeline,
        learns,
        outcome,
        pools,
        held,
        (*subject_captions(recipe)[:2], f"a {recipe.subject}"),
        replace(recipe, rate=recipe.rate or RATES[recipe.lora]),
        output,
        **how,
    )


def subject_captions(recipe: DreamboothRecipe) -> tuple[str, ...]:
    """The captions that the subject's pictures get."""
    name = f"{recipe.token} {recipe.subject}"
    return f"a {name}", f"a picture of a {name}", f"a drawing of a {name}"


def class_samples(pipeline: Pipeline, folder: Path, recipe: DreamboothRecipe, told: Told) -> list[Sample]:
    """Pictures of the class as the base model draws it, kept in `folder` and drawn only where they are missing.

    UsageError where those that are kept show another class or were drawn otherwise.
    """
    caption = f"a {recipe.subject}"
    claim(folder, {"model": pipeline.hash, "prompt": caption, "steps": recipe.sample_steps, "first seed": FIRST_SEED})
    drawn = [Captioned(folder / f"{number:04d}.png", caption) for number in range(recipe.class_pictures)]
    if launched().main:
        for number, each in enumerate(drawn):
            _draw(pipeline, each, FIRST_SEED + number, recipe.sample_steps or None)
            told(number + 1, len(drawn))
    launched().wait()
    return encoded(pipeline, drawn, [(caption,)] * len(drawn))


def _draw(pipeline: Pipeline, wanted: Captioned, seed: int, steps: int | None) -> None:
    if not wanted.path.exists():
        request = Request(prompt=wanted.caption or "", seed=seed, steps=steps, weighting="none")
        with atomic_write(wanted.path, overwrite=True) as temporary:
            pipeline(request)[0].image.save(temporary, "PNG")


def _learning(pipeline: Pipeline, factors: Factors | None, layout: str, overwrite: bool) -> tuple[Learns, Outcome]:
    if factors is None:
        return learning_unet(pipeline), model_outcome(pipeline, overwrite=overwrite)
    return learning_factors(pipeline, factors), outcome_of(factors, pipeline, layout)
