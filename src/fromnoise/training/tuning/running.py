"""One run, from the first measured step to the written result: what all trainers of this package share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fromnoise.pipeline import Pipeline, load
from fromnoise.request import Request
from fromnoise.runtime.device import channels_last
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.text import PromptEncoder
from fromnoise.training.callbacks import Averages, LearningRate
from fromnoise.training.learner import Learner
from fromnoise.training.optimizers import adamw
from fromnoise.training.recipe import write_recipe
from fromnoise.training.run import Show, fit, open_run
from fromnoise.training.tuning.needs import measure, require_memory
from fromnoise.training.tuning.samples import Pool, Sample
from fromnoise.training.tuning.task import Learns, Tuning, TuningTask
from fromnoise.training.tuning.watching import SEED_OF_SAMPLES, Enough, Samples, Watch

COOLING = 2 / 3
"""The share of a run after which its rate falls to zero."""


@dataclass(frozen=True)
class Result:
    """Where the result is, and the loss on fixed noise before and at the best step."""

    path: Path
    first: float
    best: float
    best_step: int


@dataclass(frozen=True)
class Outcome:
    """How what was learnt becomes a file: `write(path)` now, and the request's fields that draw with that file.

    `fields` is None where the model itself learns, and draws as it is.
    """

    write: Callable[[Path], None]
    fields: Callable[[Path], Mapping[str, Any]] | None = None


def opened(recipe: Tuning) -> Pipeline:
    """The base model, frozen, laid out for fast convolutions."""
    pipeline = load(recipe.model)
    if pipeline.inpaints or pipeline.unet.config.time_cond_proj_dim is not None:
        raise UsageError(f"{pipeline.name} is an inpainting or LCM network; tune the ordinary model it was made from")
    channels_last(pipeline.unet)
    return pipeline


def begin(folder: Path, recipe: Tuning, *, resume: bool) -> None:
    """Open the run folder; UsageError when a resumed run was started with another recipe, or there is one already."""
    before = folder / "recipe.toml"
    if not resume and (folder / "checkpoint.pt").exists():
        raise UsageError(f"{folder} has a checkpoint: --resume goes on from it, another --run starts afresh")
    if resume and before.exists():
        _require_same(before, folder, recipe)
    open_run(folder, recipe)


def require_free(output: Path, *, overwrite: bool) -> Path:
    """The output file as a path; UsageError when it exists or is no safetensors file."""
    output = Path(output).expanduser()
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: an adapter is written as safetensors; choose a name that ends in .safetensors")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; choose another name or allow overwriting")
    return output


def tune(
    folder: Path,
    pipeline: Pipeline,
    learns: Learns,
    outcome: Outcome,
    pools: Sequence[Pool],
    probed: Sequence[Sample],
    prompts: Sequence[str],
    recipe: Tuning,
    output: Path,
    *,
    decay: float = 0.01,
    resume: bool = False,
    show: Show | None = None,
) -> Result:
    """Learn, stop at the end or when nothing gets better, and write the best weights to `output`."""
    task = TuningTask(pipeline, learns, pools, recipe)
    _tell_needs(task, recipe)
    averages = Averages(learns.module, (recipe.average,) if recipe.average else ())
    watch = Watch(folder, probed, averages, recipe)
    samples = Samples(folder, prompts, _drawing(folder, pipeline, outcome, prompts, recipe), recipe.sample_every)
    optimizer = adamw(learns.module.parameters(), decay)
    rate = LearningRate(recipe.rate, recipe.warmup, int(recipe.steps * COOLING), recipe.steps)
    batch = recipe.batch * len(task.pools)
    try:
        fit(folder, task, rate, averages, steps=recipe.steps, batch=batch, show=show, resume=resume,
            optimizer=optimizer, minutes=recipe.minutes, extra=[samples, watch])  # fmt: skip
    except Enough as why:
        note(str(why))
    else:
        note(f"stopped after all {recipe.steps} steps")
    watch.restore(Learner(task, optimizer))
    note(f"loss on fixed noise: {watch.first:.4f} before, {watch.best:.4f} at step {watch.best_step}, which is kept")
    outcome.write(output)
    if recipe.sample_every:
        samples.compare(watch.best_step)
    return Result(output, watch.first, watch.best, watch.best_step)


def slug(text: str) -> str:
    """A token or name as part of a file name."""
    return re.sub(r"[^\w-]+", "-", text).strip("-").lower() or "token"


def _tell_needs(task: TuningTask, recipe: Tuning) -> None:
    learn = sum(each.numel() for each in task.model.parameters() if each.requires_grad)
    require_memory(learn, task.pipeline.device)
    note(measure(task).text(recipe.steps))


def _drawing(
    folder: Path, pipeline: Pipeline, outcome: Outcome, prompts: Sequence[str], recipe: Tuning
) -> Callable[[], list[Image.Image]]:
    """Draws the prompts with the weights of now, through the very file that other tools would load."""

    def draw() -> list[Image.Image]:
        fields: dict[str, Any] = {"seed": SEED_OF_SAMPLES, "steps": recipe.sample_steps}
        if outcome.fields is not None:
            now = folder / "now.safetensors"
            outcome.write(now)
            fields |= outcome.fields(now)
        pipeline.unet.eval()
        painter = _fresh(pipeline)
        try:
            return [painter(Request(prompt=each), **fields)[0].image for each in prompts]
        finally:
            pipeline.unet.train()

    return draw


def _fresh(pipeline: Pipeline) -> Pipeline:
    """The same parts in a pipeline that remembers neither words nor adapters."""
    words = PromptEncoder(pipeline.prompts.encoders, pipeline.prompts.reading)
    return Pipeline(words, pipeline.unet, pipeline.autoencoder, pipeline.scheduler, habits=pipeline.habits)


def _require_same(before: Path, folder: Path, recipe: Tuning) -> None:
    write_recipe(recipe, folder / "asked.toml")
    asked, was = (_lines(each) for each in (folder / "asked.toml", before))
    (folder / "asked.toml").unlink()
    changed = sorted(asked ^ was)
    if changed:
        raise UsageError(
            f"{folder} was started with other settings ({changed[0].strip()}); give the same ones, or another --run"
        )


def _lines(path: Path) -> set[str]:
    return set(path.read_text(encoding="utf-8").splitlines())
