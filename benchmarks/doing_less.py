"""What each way of computing less gains and costs: time on SD 1.5, quality on the embedded model.

usage: python benchmarks/doing_less.py time [--threads N]     seconds and U-Net error, SD 1.5 with random weights
       python benchmarks/doing_less.py quality [--pictures N] picture-text score and KID, embedded model
       python benchmarks/doing_less.py error                  U-Net error, embedded model

Seconds are this process's own work over its threads, so that other processes disturb them little. `time` needs about
4 GB and minutes of one core, `quality` about ten minutes of one core for 64 pictures a row.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from types import MappingProxyType
from typing import Any

import torch
from make_checkpoint import random_tensors
from torch import Tensor

import fromnoise as fn
from fromnoise.checkpoints.building import build
from fromnoise.diffusion.schedules import NoiseSchedule, trailing
from fromnoise.evaluation.distances import polynomial_kernel
from fromnoise.evaluation.drawing import draw
from fromnoise.evaluation.prompts import TRAINED, sample
from fromnoise.evaluation.reference import load_reference
from fromnoise.models.extras import NO_EXTRAS, Extras, Reuse
from fromnoise.models.published import FAMILIES
from fromnoise.models.unet import UNet
from fromnoise.pipeline.planning import network_calls
from fromnoise.runtime.machine import busy_seconds
from fromnoise.runtime.paths import JUDGE
from fromnoise.training.judging import load_judge

Fields = Mapping[str, Any]

BEST = "best (25 steps)"

OPTIONS: Mapping[str, Fields] = MappingProxyType(
    {
        BEST: {"steps": 25},
        "20 steps": {"steps": 20},
        "10 steps": {"steps": 10},
        "10 steps, UniPC": {"steps": 10, "sampler": "unipc"},
        "10 steps, align-your-steps": {"steps": 10, "schedule": "align-your-steps"},
        "10 steps, interval 0-0.8": {"steps": 10, "interval": (0.0, 0.8)},
        "10 steps, reuse 2": {"steps": 10, "reuse": (2, 1)},
        "10 steps, reuse 2,2": {"steps": 10, "reuse": (2, 2)},
        "20 steps, reuse 3": {"steps": 20, "reuse": (3, 1)},
        "10 steps, merge 0.25": {"steps": 10, "merge": 0.25},
        "10 steps, merge 0.5": {"steps": 10, "merge": 0.5},
        "balanced": {"quality": "balanced"},
        "draft": {"quality": "draft"},
    }
)
"""Each row of the tables."""

BASE = 20
"""Exact guided steps that every row's time is compared with."""

LATENTS, WORDS = 64, 77
SHIFT = 10_000
"""Other seeds for the row that says what chance alone does."""

Call = tuple[int, int | None, float]
"""Rows of a U-Net call, its outer layers (None: all), and the share of tokens merged."""


def calls(pipe: fn.Pipeline, fields: Fields) -> list[tuple[Call, int]]:
    """The U-Net calls of a picture with these settings, as SD 1.5 would make them, and how often."""
    request = pipe.resolve("", **fields)
    merge = request.merge or 0.0
    counted = network_calls(pipe, request, pipe.sigmas(request))
    return [((rows, outer, merge), count) for (rows, outer), count in counted.items()]


class Stand:
    """SD 1.5's U-Net with random weights, and the inputs that it is called with."""

    def __init__(self) -> None:
        config = FAMILIES["sd1"].parts["unet"]
        with torch.device("meta"):
            unet = build(config)
        assert isinstance(unet, UNet)
        tensors = {key: each.to(torch.bfloat16) for key, each in random_tensors(unet, 0).items()}
        unet.load_state_dict(tensors, assign=True)
        self.unet = unet.eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(2, 4, LATENTS, LATENTS, generator=generator)
        self.words = torch.randn(2, WORDS, 768, generator=generator).bfloat16()

    @torch.inference_mode()
    def __call__(self, rows: int, time: float, x: Tensor, extras: Extras = NO_EXTRAS) -> Tensor:
        """The U-Net's answer."""
        return self.unet(x[:rows].bfloat16(), torch.full((rows,), time), self.words[:rows], extras)

    def seconds(self, call: Call, repeats: int) -> float:
        """The least that such a call takes."""
        rows, outer, merge = call
        taken = []
        for _ in range(repeats + 1):
            reuse = None
            if outer is not None:
                reuse = Reuse(2, outer, 1, torch.zeros(rows, 320, LATENTS, LATENTS, dtype=torch.bfloat16))
            started = busy_seconds()
            self(rows, 500.0, self.x, Extras(merge=merge, reuse=reuse))
            taken.append(busy_seconds() - started)
        return min(taken[1:])

    def error(self, reuse: tuple[int, int] | None, merge: float) -> float:
        """The answer's mean relative error over the calls between full ones in the middle of 20 Euler steps."""
        schedule = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012)
        sigmas = trailing(schedule, BASE)[8:]
        memory = None if reuse is None else Reuse(*reuse)
        x, errors = self.x * float(sigmas[0]), []
        for sigma, after in islice(pairwise(sigmas), 2 if reuse is None else reuse[0]):
            scaled, time = x / (sigma**2 + 1) ** 0.5, float(schedule.time(sigma))
            exact = self(2, time, scaled).float()
            other = self(2, time, scaled, Extras(merge=merge, reuse=memory)).float()
            errors.append(float((other - exact).norm() / exact.norm()))
            x = x + exact * (after - sigma)
        changed = errors if memory is None else errors[1:]
        return sum(changed) / len(changed)


def time_table(threads: int, repeats: int) -> Iterator[str]:
    """The rows about SD 1.5."""
    torch.set_num_threads(threads)
    pipe, stand = fn.load(), Stand()
    errors: dict[tuple[tuple[int, int] | None, float], float] = {(None, 0.0): 0.0}
    base = stand.seconds((2, None, 0.0), repeats)
    known: dict[Call, float] = {(2, None, 0.0): base}
    yield f"one guided step: {base:.2f} s, {threads} threads\n"
    yield "| settings | guided and single calls | of them shallow | U-Net time / 20 exact steps | U-Net error |"
    yield "|---|---|---|---|---|"
    for name, fields in OPTIONS.items():
        made = calls(pipe, fields)
        known |= {call: stand.seconds(call, repeats) for call, _ in made if call not in known}
        total = sum(known[call] * count for call, count in made)
        both, single = (sum(count for (rows, _, _), count in made if rows == n) for n in (2, 1))
        shallow = sum(count for (_, outer, _), count in made if outer is not None)
        said = pipe.resolve("", **fields)
        lossy = said.reuse, said.merge or 0.0
        if lossy not in errors:
            errors[lossy] = stand.error(*lossy)
        error = f"{100 * errors[lossy]:.1f} %" if errors[lossy] else "0"
        yield f"| {name} | {both} + {single} | {shallow} | {total / (BASE * base):.3f} | {error} |"


def quality_table(pictures: int) -> Iterator[str]:
    """The rows about the embedded model: every row draws the same prompts with the same seeds."""
    pipe, judge, reference = fn.load(dtype=torch.bfloat16), load_judge(JUDGE), load_reference(JUDGE)
    asked = sample(reference.asking(TRAINED), pictures, 0)
    concepts = torch.tensor([judge.index[each.concept] for each in asked])
    real = reference.of(TRAINED)

    def seen(fields: Fields, seed: int = 0) -> Seen:
        drawn = draw(pipe, [each.text for each in asked], fn.Request(seed=seed, **fields))
        scores = (judge.study(drawn).embedding * judge.vectors[concepts]).sum(1)
        return Seen(scores, kid_without_each(reference.project(judge.read(drawn).features), real))

    exact = seen(OPTIONS[BEST])
    yield f"{pictures} prompts of trained pairs, bfloat16\n"
    yield "| settings | picture-text score | of exact | KID x 1000 | more than exact |"
    yield "|---|---|---|---|---|"
    yield exact.row(BEST, exact)
    yield seen(OPTIONS[BEST], SHIFT).row("the same, other seeds", exact)
    for name in OPTIONS:
        if name != BEST:
            yield seen(OPTIONS[name]).row(name, exact)


def error_table() -> Iterator[str]:
    """The embedded U-Net's mean relative output error along exact trajectories, as the first table has SD 1.5's."""
    pipe = fn.load()
    given: list[tuple[Tensor, Tensor, Tensor, Extras]] = []
    exact: list[Tensor] = []

    def look(_: UNet, inputs: tuple[Tensor, Tensor, Tensor, Extras], output: Tensor) -> None:
        given.append(inputs)
        exact.append(output)

    hook = pipe.unet.register_forward_hook(look)
    for prompt in ("a red heart", "a grinning face", "a rocket"):
        pipe(prompt, seed=0, steps=BASE, sampler="euler")
    hook.remove()
    yield "| reuse | merge | U-Net error |"
    yield "|---|---|---|"
    for reuse, merge in (((2, 1), 0.0), ((2, 2), 0.0), ((3, 1), 0.0), (None, 0.25), (None, 0.5)):
        memory, errors = None if reuse is None else Reuse(*reuse), []
        for index, ((x, time, words, _), answer) in enumerate(zip(given, exact, strict=True)):
            if memory is not None and index % BASE == 0:
                memory.state = ()
            with torch.inference_mode():
                other = pipe.unet(x, time, words, Extras(merge=merge, reuse=memory))
            errors.append(float((other - answer).norm() / answer.norm()))
        changed = [each for each in errors if each > 0]
        yield f"| {reuse} | {merge:g} | {100 * sum(changed) / len(changed):.1f} % |"


@dataclass(frozen=True)
class Seen:
    """What the judge saw in N pictures: their scores, and the KID of all but each of them, (N,)."""

    scores: Tensor
    kid: Tensor

    def row(self, name: str, exact: Seen) -> str:
        """A row of the table; errors are those of differences picture by picture (for KID, by the jackknife)."""
        count, mean = len(self.scores), float(exact.scores.mean())
        score = f"{100 * float(self.scores.mean()) / mean:.1f}"
        score += f" ± {100 * float((self.scores - exact.scores).std()) / count**0.5 / mean:.1f} %"
        more = self.kid - exact.kid
        error = float(((more - more.mean()) ** 2).sum() * (count - 1) / count) ** 0.5
        kid = f"{1000 * float(self.kid.mean()):.1f} | {1000 * float(more.mean()):+.1f} ± {1000 * error:.1f}"
        return f"| {name} | {float(self.scores.mean()):.3f} | {score} | {kid} |"


def kid_without_each(x: Tensor, real: Tensor) -> Tensor:
    """The squared maximum mean discrepancy to real features of all rows of x (N, D) but one, for each one: (N,)."""
    x, real, count = x.double(), real.double(), len(x)
    within, across = polynomial_kernel(x, x), polynomial_kernel(x, real).mean(1)
    rows = within.sum(1) - within.diagonal()
    own = (rows.sum() - 2 * rows) / ((count - 1) * (count - 2))
    among_real = polynomial_kernel(real, real)
    apart = (among_real.sum() - among_real.trace()) / (len(real) * (len(real) - 1))
    return own + apart - 2 * (across.sum() - across) / (count - 1)


def main() -> None:
    """Print one of the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "quality", "error"))
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    tables = {
        "time": lambda: time_table(asked.threads, asked.repeats),
        "quality": lambda: quality_table(asked.pictures),
        "error": error_table,
    }
    for line in tables[asked.what]():
        print(line, flush=True)


if __name__ == "__main__":
    main()
