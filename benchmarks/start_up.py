"""How long commands take from a cold process, beside a bare interpreter and `import torch`, as Markdown.

usage: python benchmarks/start_up.py [--rounds 7] [--model CHECKPOINT]

Every command is a process of its own, in turns; what counts is the median of wall seconds, after one warm-up. The
picture is one of the embedded model, at its defaults, on disk; the same in a warm process is timed too. With `--model`
(see make_checkpoint.py) the first step of a large model at 512x512, from a cold process, is compared with its warm
steps. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from timing import Call, medians

from fromnoise.runtime.device import cpu_name

BARE, TORCH, HELP = "a bare interpreter", "`import torch`", "`--help`"
PICTURE, FEW = "a picture", "a picture, `--fast`"


def commands(folder: Path) -> dict[str, list[str]]:
    """What the interpreter is told, by name."""
    drawing = ["-m", "fromnoise", "a red apple", "--seed", "1", "--overwrite", "-o", str(folder / "picture.png")]
    return {
        BARE: ["-c", "pass"],
        TORCH: ["-c", "import torch"],
        "`import fromnoise`": ["-c", "import fromnoise"],
        HELP: ["-m", "fromnoise", "--help"],
        "`generate --help`": ["-m", "fromnoise", "generate", "--help"],
        PICTURE: drawing,
        FEW: [*drawing, "--fast"],
    }


FIRST_STEP = """
import sys, time
from fromnoise.pipeline import load
steps = load(sys.argv[1]).steps("a cottage", negative="blurred", seed=1, size=(512, 512), steps=5)
while True:
    started = time.perf_counter()
    if next(steps, None) is None:
        break
    print(time.perf_counter() - started, flush=True)
"""
"""Draws without decoding and prints what each step took, the first with all that comes before it."""

WARM = """
import sys, time
from fromnoise.pipeline import load
pipe = load()
for _ in range(int(sys.argv[1])):
    started = time.perf_counter()
    pipe("a red apple", seed=1)
    print(time.perf_counter() - started)
"""
"""Draws with the embedded model at its defaults, again and again."""


def first_step(model: str) -> tuple[float, float]:
    """Seconds from nothing to the end of a large model's first step, and the median of its later ones."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", FIRST_STEP, model], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.perf_counter() - started
        return first, median(map(float, process.stdout))


def warm_picture(rounds: int) -> float:
    """Median seconds of a picture of the embedded model in a process that has drawn one."""
    told = subprocess.run([sys.executable, "-c", WARM, str(rounds + 1)], capture_output=True, check=True, text=True)
    return median(map(float, told.stdout.split()[1:]))


def run(arguments: list[str]) -> None:
    """One process, to its end."""
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Call] = {name: partial(run, each) for name, each in commands(Path(folder)).items()}
        seconds = medians(calls, args.rounds)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.rounds} rounds\n")
    print("| | seconds | over a bare interpreter | of `import torch` |\n|---|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {each:.3f} | {each - seconds[BARE]:.3f} | {each / seconds[TORCH]:.2f} |")
    print(f"| a picture in a warm process | {warm_picture(args.rounds):.3f} | | |")
    if args.model:
        first_step(args.model)  # compiles what is kept, and reads the file
        first, warm = first_step(args.model)
        limit = 3 * warm + seconds[TORCH]
        print(f"\nlarge model: first step after {first:.2f} s, warm steps {warm:.2f} s; 3 + torch = {limit:.2f} s")


if __name__ == "__main__":
    main()
