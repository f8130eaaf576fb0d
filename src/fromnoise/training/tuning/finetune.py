"""Full fine-tuning: the whole U-Net goes on learning from captioned pictures, and becomes a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from fromnoise.checkpoints import open_checkpoint
from fromnoise.checkpoints.convert import require_free, write_checkpoint
from fromnoise.checkpoints.stored import Stored
from fromnoise.pipeline import Pipeline
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.training.tuning.pictures import read_captioned, require_captions
from fromnoise.training.tuning.running import How, Outcome, Result, begin, opened, tune
from fromnoise.training.tuning.samples import Pool, parted, quiet
from fromnoise.training.tuning.task import Learns, Tuning
from fromnoise.training.tuning.words import spread


@dataclass(frozen=True)
class FinetuneRecipe(Tuning):
    """Settings of a run; a tenth of the captions is left out, so that guidance goes on working."""

    steps: int = 1000
    batch: int = 8
    rate: float = 1e-4
    warmup: int = 50
    empty: float = 0.1
    average: int = 200
    check_every: int = 100
    sample_every: int = 250


def train(
    pictures: Sequence[Path],
    run: Path,
    recipe: FinetuneRecipe,
    output: Path,
    **how: Unpack[How],
) -> Result:
    """Learn from captioned pictures in the folder `run`; `output` is a whole model, a folder or a .safetensors file.

    Pictures keep their shapes: each is learnt at the size nearest to its own that has the model's area. Raises
    UsageError for pictures that can't be read or have no caption.
    """
    found = read_captioned(pictures)
    require_captions(found, "")
    pipeline = opened(recipe, whole=True)
    begin(run, recipe, pictures, len(found), resume=how.get("resume", False))
    texts = [(str(each.caption),) for each in found]
    told = how.get("told", quiet)
    learnt, held = parted(pipeline, found, texts, flip=recipe.flip, buckets=True, told=told)
    return tune(
        run,
        pipeline,
        learning_unet(pipeline),
        model_outcome(pipeline, overwrite=how.get("overwrite", False)),
        [Pool(learnt)],
        held,
        spread((each[0] for each in texts), 4),
        recipe,
        output,
        **how,
    )


def learning_unet(pipeline: Pipeline) -> Learns:
    """The whole U-Net; the text encoders and the autoencoder stay as they are."""
    return Learns(pipeline.unet.requires_grad_(True), pipeline.prompts)


def model_outcome(pipeline: Pipeline, *, overwrite: bool) -> Outcome:
    """The whole model as it is, which draws by itself."""
    return Outcome(write=lambda path: write_model(path, pipeline, overwrite=overwrite))


def require_free_model(output: Path, *, overwrite: bool) -> Path:
    """The output as a path; UsageError where a model may not or can't be written."""
    output = Path(output).expanduser()
    require_free(output, overwrite)
    return output


def write_model(path: Path, pipeline: Pipeline, *, overwrite: bool = False) -> None:
    """The base model with the U-Net as it is now, in the base's number format, for `load` and for diffusers."""
    checkpoint = open_checkpoint(pipeline.path or EMBEDDED_MODEL)
    part = checkpoint.parts["unet"]
    weights = {name: each.detach().cpu().contiguous() for name, each in pipeline.unet.state_dict().items()}
    kept = {name: Stored.of(each.to(part.tensors[name].dtype)) for name, each in weights.items()}
    parts = {**checkpoint.parts, "unet": replace(part, tensors=kept)}
    write_checkpoint(replace(checkpoint, parts=parts), path, overwrite=overwrite)
