"""How long commands take from a cold process, beside a bare interpreter and `import torch`, as Markdown.

usage: python benchmarks/start_up.py [--rounds 7]

Every command is a process of its own, in turns; what counts is the median of wall seconds, after one warm-up. The
picture is one of the embedded model, at its defaults, on disk. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

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


def run(arguments: list[str]) -> None:
    """One process, to its end."""
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Call] = {name: partial(run, each) for name, each in commands(Path(folder)).items()}
        seconds = medians(calls, args.rounds)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.rounds} rounds\n")
    print("| | seconds | over a bare interpreter | of `import torch` |\n|---|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {each:.3f} | {each - seconds[BARE]:.3f} | {each / seconds[TORCH]:.2f} |")


if __name__ == "__main__":
    main()
