"""How much of the gap between the base's pictures and real ones of a concept tuning closes, in judge B's features.

usage: python benchmarks/tuning_gap.py RUNS FOLDER... [--seeds N] [--pictures N] [--guidance G] [--kinds lora inversion]

Each FOLDER is a concept, a style or a subject: captioned pictures (200 or more) of which LEARNT are learnt from (SHOWN
by textual inversion) and the rest is held out. Base and tuned model draw the held-out pictures' captions from the same
noise, in as many steps as the model takes by itself and with the same guidance. The gap closed is
1 - |after - real| / |before - real| by the means of the three clouds, each distance without what the noise of so few
pictures adds to it; "as measured" is with it, and the row `real` has both for as many real pictures, which is what is
left open by that noise alone. Control prompts are scored by the same judge before and after. Runs are kept in RUNS and
not made again. `examples/tuning/pictures.py` fetches three such folders: monsters, items and glyphs.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import fromnoise as fn
from fromnoise.adapters import Adapted, Use, read_adapter, read_embedding
from fromnoise.evaluation.distances import gap_closed
from fromnoise.evaluation.scoring import features, score
from fromnoise.images.convert import to_images
from fromnoise.runtime.device import channels_last
from fromnoise.training.tuning import inversion, lora
from fromnoise.training.tuning.factors import modules_of
from fromnoise.training.tuning.pictures import Captioned, read_captioned
from fromnoise.training.tuning.task import Learns, Tuning, TuningTask
from fromnoise.training.tuning.trajectories import Teaching, states_of

LEARNT, SHOWN = 100, 6
CONTROLS = ("a red apple", "a pizza", "a rocket", "a sunflower", "a red heart", "a grinning face", "a house", "a cat")
TOKEN = "<tuned>"
FIRST_SEED, AT_ONCE = 5000, 16
"""Drawing: the first picture's seed, and pictures in one call."""

CONTROL_SEEDS = 3

RECIPES: dict[str, Any] = {
    "lora": lora.LoraRecipe(flip=True, sample_every=0),
    "inversion": inversion.InversionRecipe(token=TOKEN, init="drawing", style=True, sample_every=0),
}


@dataclass(frozen=True)
class Concept:
    """A concept's name, the pictures to learn from and those held out."""

    name: str
    learnt: list[Captioned]
    held: list[Captioned]


@dataclass(frozen=True)
class Drawn:
    """A model's pictures: features of those of the concept (N, D), and the mean score of the control prompts'."""

    features: Tensor
    control: float


def concept_of(folder: Path) -> Concept:
    """The folder's captioned pictures in an order of chance that is always the same."""
    found = read_captioned([folder])
    random.Random(0).shuffle(found)
    return Concept(folder.name, found[:LEARNT], found[LEARNT:])


def tuned(kind: str, concept: Concept, seed: int, runs: Path) -> Path:
    """Learn, or find what was learnt before."""
    run = runs / f"{concept.name}-{kind}-{seed}"
    output = run / "learnt.safetensors"
    if not output.exists():
        recipe = type(RECIPES[kind])(**{**vars(RECIPES[kind]), "seed": seed})
        trainer, shown = (lora, LEARNT) if kind == "lora" else (inversion, SHOWN)
        trainer.train([each.path for each in concept.learnt[:shown]], run, recipe, output)
    return output


@torch.no_grad()
def draw(pipe: fn.Pipeline, prompts: Sequence[str], adapted: Adapted, guidance: float) -> list[Image.Image]:
    """A picture of each prompt, each with its own seed, many at once."""
    nothing = Learns(nn.Module(), adapted.prompts(pipe.prompts), adapted)
    task = TuningTask(pipe, nothing, (), Tuning(seed=FIRST_SEED))
    habits = pipe.habits
    teaching = Teaching(habits.steps, 1, guidance, habits.sampler, habits.sampler, habits.schedule)
    made = []
    with adapted:
        for first in range(0, len(prompts), AT_ONCE):
            made.append(states_of(task, prompts[first : first + AT_ONCE], teaching, first)[:, -1])
    return [each for latents in made for each in to_images(pipe.autoencoder.decode(latents))]


def drawn(
    pipe: fn.Pipeline, concept: Concept, pictures: int, guidance: float, kind: str = "", learnt: Path | None = None
) -> Drawn:
    """Draw the held-out captions and the control prompts, and let the judge look."""
    uses = [Use(read_adapter(learnt))] if learnt and kind == "lora" else []
    embeddings = [read_embedding(learnt)] if learnt and kind == "inversion" else []
    ending = f", {TOKEN} style" if embeddings else ""
    captions, controls = [f"{each.caption}{ending}" for each in concept.held[:pictures]], CONTROLS * CONTROL_SEEDS
    adapted = Adapted(modules_of(pipe), uses, embeddings, learning=True)
    found = draw(pipe, [*captions, *controls], adapted, guidance)
    return Drawn(features(found[: len(captions)]), float(score(found[len(captions) :], controls).mean()))


def as_measured(before: Tensor, after: Tensor, real: Tensor) -> float:
    """The gap closed by the distances of the clouds' own means."""
    return 1 - float((after.mean(0) - real.mean(0)).norm() / (before.mean(0) - real.mean(0)).norm())


def main() -> None:
    """Train, draw, and print a row a run, then medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--kinds", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    asked = parser.parse_args()
    pipe = fn.load(dtype="float32")
    channels_last(pipe.unet)
    rows: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in asked.kinds}
    print("| concept | | seed | gap closed | as measured | control score kept |\n|---|---|---|---|---|---|")
    for concept in map(concept_of, asked.folders):
        real = features([each.open().resize(pipe.size) for each in concept.held])
        before = drawn(pipe, concept, asked.pictures, asked.guidance)
        some, rest = real[: asked.pictures], real[asked.pictures :]
        ways = gap_closed, as_measured
        ceiling = [f"{way(before.features, some, rest):.2f}" for way in ways]
        print(f"| {concept.name} | real | | {' | '.join(ceiling)} | |", flush=True)
        for kind, seed in ((kind, seed) for kind in asked.kinds for seed in range(asked.seeds)):
            learnt = tuned(kind, concept, seed, asked.runs)
            after = drawn(pipe, concept, asked.pictures, asked.guidance, kind, learnt)
            closed = [way(before.features, after.features, real) for way in ways]
            rows[kind].append((closed[0], closed[1], after.control / before.control))
            said = f"{closed[0]:.2f} | {closed[1]:.2f} | {rows[kind][-1][2]:.0%}"
            print(f"| {concept.name} | {kind} | {seed} | {said} |", flush=True)
    for kind, each in rows.items():
        gap, measured, kept = (median(column) for column in zip(*each, strict=True))
        print(f"| median of {len(each)} | {kind} | | {gap:.2f} | {measured:.2f} | {kept:.0%} |")


if __name__ == "__main__":
    main()
