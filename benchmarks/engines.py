"""Engines and peers alternating on one checkpoint: seconds of a guided step and of decoding, as Markdown.

usage: python benchmarks/engines.py CHECKPOINT REPORT.md [--rounds 5] [--threads N] [--engines eager,openvino] [--peers]

CHECKPOINT is a folder as `make_checkpoint.py sd1` writes it. Each row is prepared first, then all run in turns; what
counts is the median of wall seconds. `--peers` adds diffusers' modules in float32 and bfloat16 (needs diffusers). A
bfloat16 U-Net takes about 2 GB a row, so name few engines at a time where memory is short.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

import fromnoise as fn
from fromnoise.engines.cache import Store
from fromnoise.engines.names import EAGER
from fromnoise.engines.plain import PlainDecoder, PlainUNet
from fromnoise.engines.running import engine
from fromnoise.runtime.device import cpu_name

STEP, DECODE = 1354, 2480
"""GFLOP of Stable Diffusion 1.5 at 512x512: a U-Net call of two rows, a decode of one picture."""

Row = tuple[str, float, str, Callable[[], object]]
"""What runs, its GFLOP, what is known of it, and the call."""


def inputs() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What the U-Net and the decoder are given."""
    generator = torch.Generator().manual_seed(0)
    x, words = (torch.randn(shape, generator=generator) for shape in ((2, 4, 64, 64), (2, 77, 768)))
    return (x, torch.tensor([500.0, 500.0]), words), (x[:1],)


def ours(checkpoint: Path, names: list[str], dtype: str) -> list[Row]:
    """Our networks in each engine."""
    pipe = fn.load(checkpoint, engine=EAGER, dtype=dtype)
    modules = (("step", STEP, PlainUNet(pipe.unet)), ("decode", DECODE, PlainDecoder(pipe.autoencoder)))
    rows: list[Row] = []
    for name in names:
        for (what, work, module), given in zip(modules, inputs(), strict=True):
            made = engine(name).prepare(module, given, Store())
            ready = f"{'read' if made.cached else 'made'} in {made.seconds:.0f} s, {made.difference:.1e} from eager"
            rows.append((f"{what}, {name} {dtype}", work, ready, lambda made=made, given=given: made(*given)))
    return rows


def theirs(checkpoint: Path, dtype: torch.dtype) -> list[Row]:
    """diffusers' networks."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet: nn.Module = UNet2DConditionModel.from_pretrained(checkpoint / "unet", torch_dtype=dtype).eval()
    vae = AutoencoderKL.from_pretrained(checkpoint / "vae", torch_dtype=dtype).eval()
    (x, when, words), (latents,) = inputs()
    x, words, latents = (each.to(dtype) for each in (x, words, latents))
    name = f"diffusers {str(dtype).removeprefix('torch.')}"
    return [
        (f"step, {name}", STEP, "", lambda: unet(x, when, words)),
        (f"decode, {name}", DECODE, "", lambda: vae.decode(latents)),
    ]


def alternate(rows: list[Row], rounds: int) -> list[float]:
    """Median seconds of each row, all run in turns after one round that doesn't count."""
    times: list[list[float]] = [[] for _ in rows]
    for _ in range(rounds + 1):
        for row, taken in zip(rows, times, strict=True):
            began = time.perf_counter()
            row[3]()
            taken.append(time.perf_counter() - began)
    return [median(taken[1:]) for taken in times]


def report(rows: list[Row], seconds: list[float], rounds: int) -> str:
    """The table."""
    head = f"# Engines\n\n{date.today()}, {cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
    lines = [f"{head}medians of {rounds} rounds.\n", "| what | seconds | GFLOP/s | preparing |", "|---|---|---|---|"]
    for (name, work, ready, _), taken in zip(rows, seconds, strict=True):
        lines.append(f"| {name} | {taken:.2f} | {work / taken:.0f} | {ready} |")
    return "\n".join(lines) + "\n"


@torch.inference_mode()
def main() -> None:
    """Prepare, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--engines", default="eager,openvino")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--peers", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows = ours(asked.checkpoint, asked.engines.split(","), asked.dtype)
    if asked.peers:
        rows += [row for dtype in (torch.float32, torch.bfloat16) for row in theirs(asked.checkpoint, dtype)]
    table = report(rows, alternate(rows, asked.rounds), asked.rounds)
    asked.report.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
