"""One run, from the first measured step to the written result: what all trainers of this package share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from PIL import Image

from fromnoise.checkpoints import open_checkpoint
from fromnoise.checkpoints.folder import write_json
from fromnoise.engines.eager import LARGE, leave
from fromnoise.hub import found
from fromnoise.hub.contents import LEARNT_FROM
from fromnoise.pipeline import Pipeline, load
from fromnoise.pipeline.loading import parameters
from fromnoise.request import Request
from fromnoise.runtime.device import channels_last
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL, require_writable
from fromnoise.text import PromptEncoder
from fromnoise.training.callbacks import CHECKPOINT, Averages, LearningRate
from fromnoise.training.optimizers import adamw
from fromnoise.training.processes import launched
from fromnoise.training.recipe import recipe_lines
from fromnoise.training.record import Record
from fromnoise.training.run import RECIPE, Show, fit, open_run, require_begun
from fromnoise.training.tuning.made import Made
from fromnoise.training.tuning.needs import Forecast, Room
from fromnoise.training.tuning.samples import HeldOut, Pool, Told
from fromnoise.training.tuning.showing import SEED, Samples
from fromnoise.training.tuning.task import Learns, Tuning, TuningTask
from fromnoise.training.tuning.watching import Enough, Watch

COOLING = 2 / 3
"""The share of a run after which its rate falls to zero."""


class How(TypedDict, total=False):
    """What every trainer may be told beside its recipe: replace a model that is there, go on, and whom to tell."""

    overwrite: bool
    resume: bool
    show: Show | None
    told: Told


@dataclass(frozen=True)
class Result:
    """Where the result is, the loss on what was held out before and at the best step, and the drift there."""

    path: Path
    first: float
    best: float
    best_step: int
    drift: float


@dataclass(frozen=True)
class Outcome:
    """How what was learnt becomes a file: `write(path)` now, and the request's fields that draw with that file.

    `fields` is None where the model itself learns, and draws as it is.
    """

    write: Callable[[Path], None]
    fields: Callable[[Path], Mapping[str, Any]] | None = None


def opened(recipe: Tuning, *, whole: bool = False) -> Pipeline:
    """The base model, frozen, laid out for fast convolutions.

    A large one is in half precision where that is fast, unless it is to learn as a `whole`; all others in float32.
    """
    path = EMBEDDED_MODEL if recipe.model is None else found(recipe.model)
    unet = open_checkpoint(path).parts.get("unet")
    large = unet is not None and parameters(unet) >= LARGE  # `load` says what is missing
    pipeline = load(path, device=launched().device, dtype=None if large and not whole else torch.float32)
    if pipeline.inpaints or pipeline.unet.config.time_cond_proj_dim is not None:
        raise UsageError(f"{pipeline.name} is an inpainting or LCM network; tune the ordinary model it was made from")
    leave(pipeline.unet)
    channels_last(pipeline.unet)
    return pipeline


def begin(folder: Path, recipe: Tuning, sources: Sequence[Path] = (), count: int = 0, *, resume: bool) -> None:
    """Open the run folder, where `count` pictures of the files or folders `sources` are noted for a model card.

    UsageError when a resumed run was started with another recipe or isn't there, or a new one is there already.
    """
    if not resume and (folder / CHECKPOINT).exists():
        raise UsageError(f"{folder} has a checkpoint: --resume goes on from it, another --run starts afresh")
    if resume:
        require_begun(folder)
        _require_same(folder / RECIPE, folder, recipe)
    if launched().main:
        open_run(folder, recipe)
        if sources:
            names = [Path(each).expanduser().resolve().name for each in sources]
            write_json(folder / LEARNT_FROM, {"pictures": {"count": count, "names": names}})
    launched().wait()


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
    held: HeldOut,
    prompts: Sequence[str],
    recipe: Tuning,
    output: Path,
    *,
    decay: float = 0.01,
    kind: Callable[..., TuningTask] = TuningTask,
    **how: Unpack[How],
) -> Result:
    """Learn, stop at the end or when nothing gets better, and write the best weights to `output`."""
    processes = launched()
    task = kind(pipeline, learns, pools, recipe, processes)
    require_writable(output)
    record = Record(folder, track=recipe.track and processes.main)
    averages = Averages(learns.module, (recipe.average,) if recipe.average else ())
    watch = Watch(task, folder, held, averages, record)
    draw = _drawing(folder, pipeline, outcome, prompts, recipe)
    samples = Samples(folder, prompts, draw, recipe.sample_every if processes.main else 0, record)
    try:
        fit(
            folder,
            task,
            LearningRate(recipe.rate, recipe.warmup, int(recipe.steps * COOLING), recipe.steps),
            averages,
            steps=recipe.steps,
            batch=recipe.batch * len(task.pools) * processes.count,
            show=how.get("show"),
            resume=how.get("resume", False),
            optimizer=adamw(learns.module.parameters(), decay),
            minutes=recipe.minutes,
            extra=[Room(task), Made(task), samples, watch, Forecast(task, samples, watch)],
            record=record,
            processes=processes,
        )
    except Enough as why:
        watch.say(str(why))
    else:
        watch.say(f"stopped after all {recipe.steps} steps; drift on control prompts {watch.drift:.3f}")
    return _finished(watch, samples, outcome, output)


def _finished(watch: Watch, samples: Samples, outcome: Outcome, output: Path) -> Result:
    """Write the best weights, and draw with them; one process does it for all."""
    watch.restore()
    if watch.task.processes.main:
        watch.say(
            f"loss on {watch.held.name}, with fixed noise: {watch.first:.4f} before, {watch.best:.4f} at step "
            f"{watch.best_step}, which is kept; its drift is {watch.best_drift:.3f}"
        )
        outcome.write(output)
        if samples.every:
            samples.compare(watch.best_step)
    watch.task.processes.wait()
    return Result(output, watch.first, watch.best, watch.best_step, watch.best_drift)


def slug(text: str) -> str:
    """A token or name as part of a file name."""
    return re.sub(r"[^\w-]+", "-", text).strip("-").lower() or "token"


def _drawing(
    folder: Path, pipeline: Pipeline, outcome: Outcome, prompts: Sequence[str], recipe: Tuning
) -> Callable[[], list[Image.Image]]:
    """Draws the prompts, word for word, with the weights of now, through the very file that other tools would load."""

    def draw() -> list[Image.Image]:
        fields: dict[str, Any] = {"seed": SEED, "steps": recipe.sample_steps or None, "weighting": "none"}
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
    was = set(before.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    changed = sorted(was ^ {each.rstrip("\n") for each in recipe_lines(recipe)})
    if changed:
        raise UsageError(
            f"{folder} was started with other settings ({changed[0].strip()}); give the same ones, or another --run"
        )
