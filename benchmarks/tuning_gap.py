"""How much of the gap between the base's pictures and real ones of a concept tuning closes, in judge B's features.

usage: python benchmarks/tuning_gap.py RUNS FOLDER... [--seeds N] [--pictures N] [--kinds lora inversion]

Each FOLDER is a concept, a style or a subject: captioned pictures (40 or more) of which LEARNT are learnt from (SHOWN
by textual inversion) and the rest is held out. Base and tuned model draw the held-out pictures' captions with the same
seeds. The gap closed is 1 - |after - real| / |before - real| by the means of the three clouds; `real` between two
halves of the real pictures says what noise of so few leaves open. Control prompts are scored by the same judge before
and after. Runs are kept in RUNS and not made again. `examples/tuning/pictures.py` fetches one such folder.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image
from torch import Tensor

import fromnoise as fn
from fromnoise.evaluation.distances import gap_closed
from fromnoise.evaluation.scoring import features, score
from fromnoise.request import Lora, Request
from fromnoise.training.tuning import inversion, lora
from fromnoise.training.tuning.pictures import Captioned, read_captioned

LEARNT, SHOWN = 40, 6
CONTROLS = ("a red apple", "a pizza", "a rocket", "a sunflower", "a red heart", "a grinning face", "a house", "a cat")
TOKEN = "<tuned>"
STEPS = {"lora": 250, "inversion": 200}


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


def tuned(kind: str, concept: Concept, seed: int, runs: Path) -> dict[str, Any]:
    """Learn, or find what was learnt before: the fields of a request that draws with it."""
    run = runs / f"{concept.name}-{kind}-{seed}"
    output = run / "learnt.safetensors"
    common: dict[str, Any] = {"seed": seed, "steps": STEPS[kind], "sample_every": 0}
    if kind == "lora":
        if not output.exists():
            lora.train([each.path for each in concept.learnt], run, lora.LoraRecipe(**common), output)
        return {"loras": (Lora(str(output)),)}
    if not output.exists():
        recipe = inversion.InversionRecipe(token=TOKEN, init="drawing", style=True, vectors=4, **common)
        inversion.train([each.path for each in concept.learnt[:SHOWN]], run, recipe, output)
    return {"embeddings": (str(output),)}


def draw(pipe: fn.Pipeline, prompts: Sequence[str], **fields: Any) -> list[Image.Image]:
    """A picture of each prompt, each with its own seed."""
    return [pipe(Request(prompt, seed=index), **fields)[0].image for index, prompt in enumerate(prompts)]


def drawn(pipe: fn.Pipeline, concept: Concept, pictures: int, ending: str = "", **fields: Any) -> Drawn:
    """Draw the held-out captions and the control prompts, and let the judge look."""
    captions = [f"{each.caption}{ending}" for each in concept.held[:pictures]]
    controls = draw(pipe, CONTROLS, **fields)
    return Drawn(features(draw(pipe, captions, **fields)), float(score(controls, CONTROLS).mean()))


def main() -> None:
    """Train, draw, and print a row a run, then medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--kinds", nargs="+", default=list(STEPS), choices=list(STEPS))
    asked = parser.parse_args()
    pipe = fn.load()
    closed: dict[str, list[tuple[float, float]]] = {kind: [] for kind in asked.kinds}
    print("| concept | | seed | gap closed | control score kept |\n|---|---|---|---|---|")
    for concept in map(concept_of, asked.folders):
        real = features([each.open().resize(pipe.size) for each in concept.held])
        before = drawn(pipe, concept, asked.pictures)
        print(f"| {concept.name} | real | | {gap_closed(before.features, real[::2], real[1::2]):.2f} | |", flush=True)
        for kind in asked.kinds:
            ending = f", {TOKEN} style" if kind == "inversion" else ""
            for seed in range(asked.seeds):
                after = drawn(pipe, concept, asked.pictures, ending, **tuned(kind, concept, seed, asked.runs))
                row = gap_closed(before.features, after.features, real), after.control / before.control
                closed[kind].append(row)
                print(f"| {concept.name} | {kind} | {seed} | {row[0]:.2f} | {row[1]:.0%} |", flush=True)
    for kind, rows in closed.items():
        gap, kept = (median(column) for column in zip(*rows, strict=True))
        print(f"| median of {len(rows)} | {kind} | | {gap:.2f} | {kept:.0%} |")


if __name__ == "__main__":
    main()
