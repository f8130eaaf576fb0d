"""How a drawing's cost grows with the size, the batch and the steps: seconds and memory by cell, as CSV lines.

usage: python benchmarks/cost.py CHECKPOINT [--sizes 256 512 768 1024] [--batches 1 2 4 8] [--steps 1 2 4]

One process measures all. A cell is one guided step of the U-Net (two rows a picture); after each size's cells comes the
decode of one picture, since pictures are decoded one at a time, and then, at the smallest size, drawings of several
steps. Seconds are this process's own work divided by its threads, memory the process's peak during the cell.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from fromnoise.pipeline import Pipeline, last, load
from fromnoise.runtime.machine import busy_seconds
from fromnoise.runtime.memory import give_back

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak() -> float:
    """The most memory since `forget`, in GB."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e9


def cell(name: str, run: Callable[[], object]) -> None:
    """Run once and print a line."""
    give_back()
    FORGET.write_text("5")
    started = busy_seconds()
    run()
    print(f"{name},{busy_seconds() - started:.2f},{peak():.2f}", flush=True)


def steps_of(pipe: Pipeline, size: int, count: int, steps: int) -> Callable[[], object]:
    """So many guided steps of so many pictures in one batch, not decoded."""
    request = pipe.resolve("a cottage", negative="blurred", seed=1, size=(size, size), count=count, steps=steps)
    return lambda: last(pipe.steps(request))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 768, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 2, 4])
    args = parser.parse_args()
    pipe = load(args.checkpoint)
    steps_of(pipe, 64, 1, 1)()  # lays out, compiles, and encodes the words
    print("what,size,batch,steps,seconds,gigabytes")
    for size in args.sizes:
        for batch in args.batches:
            cell(f"step,{size},{batch},1", steps_of(pipe, size, batch, 1))
        latents = next(iter(pipe.steps("a cottage", seed=1, size=(size, size), steps=1))).x
        cell(f"decode,{size},1,0", lambda latents=latents: pipe.decode(latents))
    for steps in args.steps:
        cell(f"steps,{args.sizes[0]},1,{steps}", steps_of(pipe, args.sizes[0], 1, steps))


if __name__ == "__main__":
    main()
