"""Quality against network calls for every sampler, on the embedded model: a table, and a figure for the docs.

usage: python benchmarks/compare_samplers.py [FIGURE.svg] [--seeds N] [--model PATH] [--judge FOLDER]

Quality is the judge's picture-text score, and the distance of the finished latents to where the sampler's equation
leads (Heun in 100 steps), for samplers that add no noise. Needs matplotlib. About eight minutes of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from torch import Tensor

import fromnoise as fn
from fromnoise.diffusion.samplers import TWO_DENOISERS
from fromnoise.diffusion.samplers_table import SAMPLER_FACTS
from fromnoise.evaluation.scoring import score
from fromnoise.pipeline import last
from fromnoise.runtime.paths import JUDGE
from fromnoise.training.judging import Trained, load_judge

PROMPTS = ("a red heart", "a grinning face", "a red apple", "a pizza", "a sunflower", "a rocket")
CALLS = (5, 10, 20)
GUIDANCE, CFG_PP = 4.0, 0.6


@dataclass(frozen=True)
class Measured:
    """A sampler at so many calls of the network a picture: mean score, its standard error, distance to the goal."""

    calls: float
    score: float
    error: float
    apart: float

    def __str__(self) -> str:
        return f"{self.score:.3f} ± {self.error:.3f}"


def settings(sampler: str, calls: int) -> dict[str, object]:
    """A sampler's settings for so many network calls; DPM adaptive decides by itself."""
    a_step = SAMPLER_FACTS[sampler].calls or 1
    guidance = CFG_PP if sampler in TWO_DENOISERS else GUIDANCE
    return {"sampler": sampler, "steps": max(calls // a_step, 1), "guidance": guidance}


def finished(pipe: fn.Pipeline, prompt: str, seeds: int, **fields: object) -> Tensor:
    """The latents of a prompt's pictures, (seeds, C, h, w)."""
    return last(pipe.steps(prompt, seed=0, count=seeds, **fields)).x


def measure(pipe: fn.Pipeline, judge: Trained, sampler: str, calls: int, seeds: int, goal: list[Tensor]) -> Measured:
    """All prompts' pictures by a sampler, judged."""
    counted: list[int] = []
    hook = pipe.unet.register_forward_hook(lambda *_: counted.append(1))
    drawn = [finished(pipe, prompt, seeds, **settings(sampler, calls)) for prompt in PROMPTS]
    hook.remove()
    pairs = list(zip(drawn, PROMPTS, strict=True))
    scores = [float(each) for latents, prompt in pairs for each in judged(pipe, judge, latents, prompt)]
    apart = [float((latents - there).norm() / there.norm()) for latents, there in zip(drawn, goal, strict=True)]
    return Measured(len(counted) / len(PROMPTS), mean(scores), stdev(scores) / len(scores) ** 0.5, mean(apart))


def judged(pipe: fn.Pipeline, judge: Trained, latents: Tensor, prompt: str) -> Tensor:
    """Each picture's score."""
    return score(pipe.decode(latents), [prompt] * len(latents), judge)


def draw_figure(path: Path, found: Mapping[str, Sequence[Measured]]) -> None:
    """Score against calls, samplers that add noise dashed."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    for name, row in found.items():
        style = "-" if SAMPLER_FACTS[name].deterministic else "--"
        axes.plot(
            [each.calls for each in row], [each.score for each in row], style, marker="o", markersize=3, label=name
        )
    axes.set(xscale="log", xlabel="network calls a picture (guided)", ylabel="picture-text score")
    axes.set_xticks(CALLS, [str(calls) for calls in CALLS])
    axes.legend(ncols=2, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    """Measure, print the table as Markdown, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model")
    parser.add_argument("--judge", type=Path, default=JUDGE)
    asked = parser.parse_args()
    pipe, judge = fn.load(asked.model), load_judge(asked.judge)
    goal = [finished(pipe, prompt, asked.seeds, sampler="heun", steps=100, guidance=GUIDANCE) for prompt in PROMPTS]
    print("| sampler | " + " | ".join(f"{calls} calls" for calls in CALLS) + " | apart, 20 calls |")
    print("|---" * (len(CALLS) + 2) + "|")
    found: dict[str, list[Measured]] = {}
    for name, facts in SAMPLER_FACTS.items():
        budgets = CALLS if facts.calls else CALLS[-1:]
        found[name] = [measure(pipe, judge, name, calls, asked.seeds, goal) for calls in budgets]
        cells = [*[""] * (len(CALLS) - len(budgets)), *map(str, found[name])]
        exact = facts.deterministic and name not in TWO_DENOISERS
        apart = f"{found[name][-1].apart:.3f}" if exact else ""
        own = "" if facts.calls else f" ({found[name][-1].calls:.0f} calls)"
        print(f"| {name}{own} | {' | '.join(cells)} | {apart} |", flush=True)
    if asked.figure:
        draw_figure(asked.figure, found)


if __name__ == "__main__":
    main()
