"""Measure what the guidance doctor's thresholds should be, and what each kind of guidance does, on a model.

usage: calibrate_doctor.py [scales] [methods] [--model PATH] [--steps N]

`scales` draws 12 prompts with 4 seeds each at 12 guidance scales, prints the table for docs/guidance.md, and what
belongs into `RANGES` and `GROWTH` of diffusion/doctor.py. `methods` draws the prompts with 2 seeds and every kind of
guidance. They take about eight and five minutes of one core.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median
from typing import Any

import torch

import fromnoise as fn
from fromnoise.diffusion.doctor import RANGES, Diagnosis, Range, diagnose

PROMPTS = (
    "a red apple",
    "a red heart",
    "smiling face with hearts",
    "robot",
    "a fox",
    "a lion",
    "sunflower",
    "a pizza",
    "the full moon",
    "a rocket",
    "a blue fish",
    "a house",
)
SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0, 30.0)
WEAK, FINE, STRONG = (0.0, 1.0, 1.5), (3.0, 4.0, 5.0, 7.0), (14.0, 20.0, 30.0)
"""What a person says of the embedded model's pictures; the scales between are neither."""

FIGURES = ("norm", "opening", "wander", "deviation", "agreement", "saturation", "clipped")

METHODS: dict[str, dict[str, Any]] = {
    "guidance 4": {"guidance": 4.0},
    "guidance 4, 25 steps": {"guidance": 4.0, "steps": 25},
    "guidance 4, Euler a": {"guidance": 4.0, "sampler": "euler-a"},
    "guidance 4, PAG 2": {"guidance": 4.0, "pag": 2.0},
    "guidance 1, PAG 2": {"guidance": 1.0, "pag": 2.0},
    "guidance 12": {"guidance": 12.0},
    "guidance 12, 25 steps": {"guidance": 12.0, "steps": 25},
    "guidance 12, rescale 0.7": {"guidance": 12.0, "rescale": 0.7},
    "guidance 12, interval 0.2 to 0.8": {"guidance": 12.0, "interval": (0.2, 0.8)},
    "guidance 12, APG (0, none, -0.5)": {"guidance": 12.0, "apg": (0.0, 0.0, -0.5)},
    "guidance 12, APG (0, 5, -0.5)": {"guidance": 12.0, "apg": (0.0, 5.0, -0.5)},
    "guidance 12, threshold 0.95": {"guidance": 12.0, "threshold": 0.95},
}


def examine(pipe: fn.Pipeline, prompt: str, seeds: int, **fields: Any) -> Diagnosis:
    """The doctor's opinion of one prompt's pictures."""
    request = fn.Request(prompt=prompt, seed=0, count=seeds, sampler="dpmpp-2m").with_(**fields)
    steps = list(pipe.steps(request))
    with torch.inference_mode():
        pixels = torch.cat([pipe.autoencoder.decode(each) for each in steps[-1].denoised.split(1)])
    return diagnose(steps, pixels=pixels, guidance=request.guidance)


def row(name: str, seen: Sequence[Diagnosis]) -> str:
    """A line of the table: medians over the prompts, and how many of them are of each verdict."""
    cells = [f"{median(getattr(each.figures, figure) for each in seen):.3f}" for figure in FIGURES]
    verdicts = [sum(each.verdict == verdict for each in seen) for verdict in ("too weak", "fine", "too strong")]
    return "| " + " | ".join([name, *cells, "/".join(map(str, verdicts))]) + " |"


def table(draws: Iterable[tuple[str, Callable[[], list[Diagnosis]]]]) -> list[list[Diagnosis]]:
    """Draws and prints line after line."""
    print("| | " + " | ".join(FIGURES) + " | weak/fine/strong |\n" + "|---" * (len(FIGURES) + 2) + "|")
    made = []
    for name, draw in draws:
        made.append(draw())
        print(row(name, made[-1]), flush=True)
    return made


def scales(pipe: fn.Pipeline, steps: int) -> None:
    """The table over guidance scales and the thresholds that follow from it."""

    def at(scale: float) -> list[Diagnosis]:
        return [examine(pipe, prompt, 4, guidance=scale, steps=steps) for prompt in PROMPTS]

    seen = dict(zip(SCALES, table((f"{scale:g}", lambda scale=scale: at(scale)) for scale in SCALES), strict=True))
    ranges = {name: between(name, seen) for name in RANGES}
    print(
        "\nRANGES that follow:", {name: (round(weak, 2), round(strong, 2)) for name, (weak, strong) in ranges.items()}
    )
    for label, used in (("with these", ranges), ("with today's", dict(RANGES))):
        places = {scale: [place(each, used) for each in seen[scale]] for scale in SCALES}
        right = [share(places, WEAK, lambda p: p < 0), share(places, FINE, lambda p: 0 <= p <= 1)]
        right.append(share(places, STRONG, lambda p: p > 1))
        told = ", ".join(f"{name} {each:.0%}" for name, each in zip(("weak", "fine", "strong"), right, strict=True))
        print(f"{label}: told rightly: {told}; GROWTH {growth(places):.2f}; position at 4: {median(places[4.0]):.2f}")


def between(name: str, seen: dict[float, list[Diagnosis]]) -> Range:
    """A figure's thresholds: half-way, in its logarithm, between the medians of the groups."""
    weak, fine, strong = (
        median(math.log(getattr(each.figures, name)) for scale in group for each in seen[scale])
        for group in (WEAK, FINE, STRONG)
    )
    return Range(math.exp((weak + fine) / 2), math.exp((fine + strong) / 2))


def place(seen: Diagnosis, ranges: dict[str, Range]) -> float:
    """The position that other ranges would give, from the means over the pictures."""
    return mean(float(each.position(torch.tensor(getattr(seen.figures, name)))) for name, each in ranges.items())


def share(places: dict[float, list[float]], group: Sequence[float], right: Callable[[float], bool]) -> float:
    """How many of a group's drawings are told rightly, in [0, 1]."""
    return mean(right(each) for scale in group for each in places[scale])


def growth(places: dict[float, list[float]]) -> float:
    """The slope of log scale over position, from the weakest healthy scale to the strongest."""
    first, last = FINE[0], STRONG[-1]
    return math.log(last / first) / (median(places[last]) - median(places[first]))


def methods(pipe: fn.Pipeline, steps: int) -> None:
    """The table over kinds of guidance."""

    def by(fields: dict[str, Any]) -> list[Diagnosis]:
        return [examine(pipe, prompt, 2, **{"steps": steps, **fields}) for prompt in PROMPTS]

    table((name, lambda fields=fields: by(fields)) for name, fields in METHODS.items())


def main() -> None:
    """Draw what is asked for, and say how long it took."""
    parser = argparse.ArgumentParser(description="Calibrate the guidance doctor.")
    parser.add_argument("what", nargs="*", default=["scales", "methods"], help="scales, methods, or both")
    parser.add_argument("--model", help="a model's folder (default: the embedded one)")
    parser.add_argument("--steps", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pipe = fn.load(asked.model)
    for name in asked.what:
        started = time.process_time()
        print(f"\n{pipe.name} {pipe.hash}, {name}, DPM++ 2M, {asked.steps} steps\n")
        {"scales": scales, "methods": methods}[name](pipe, asked.steps)
        print(f"\n{time.process_time() - started:.0f} s of one core")


if __name__ == "__main__":
    main()
