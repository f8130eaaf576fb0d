"""What int8 loses: the U-Net's output error of any model, and the quality of the embedded one's pictures.

usage: python benchmarks/int8.py error MODEL OPTIMISED          a model, and what fromnoise optimize made of it
       python benchmarks/int8.py quality OPTIMISED [--pictures 64] [--steps 25]    of the embedded model

The error is |int8 - exact| / |exact| of answers to noise at five timesteps, two rows, at the model's own size, told a
prompt's words or noise; exact is the model in its usual number format, and in float32 where that is small. Each needs
minutes of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from doing_less import SHIFT, Seen, kid_without_each
from torch import Tensor

import fromnoise as fn
from fromnoise.checkpoints import open_checkpoint
from fromnoise.engines.eager import pack_numbers
from fromnoise.evaluation.drawing import draw
from fromnoise.evaluation.prompts import TRAINED, sample
from fromnoise.evaluation.reference import load_reference
from fromnoise.models.unet import UNet
from fromnoise.pipeline.loading import filled
from fromnoise.runtime.device import pick_dtype
from fromnoise.runtime.paths import JUDGE
from fromnoise.training.judging import load_judge

TIMES = (950, 700, 400, 150, 20)


def unet(model: Path) -> UNet:
    """A model's U-Net, as a CPU has it by itself."""
    part, cpu = open_checkpoint(model).parts["unet"], torch.device("cpu")
    made = filled(
        part, cpu, pick_dtype(None, cpu, sum(torch.Size(each.shape).numel() for each in part.tensors.values()))
    )
    assert isinstance(made, UNet)
    pack_numbers(made)
    return made


@torch.inference_mode()
def words_of(model: Path, width: int) -> dict[str, Tensor]:
    """What the U-Net is told: a prompt and the empty one, as the model reads them, and noise in their place."""
    said = fn.load(model).prompts.encode(["a lighthouse on a cliff", ""]).words
    noise = torch.randn(2, said.shape[1], width, generator=torch.Generator().manual_seed(2))
    return {"a prompt's words": said, "noise for words": noise}


@torch.inference_mode()
def answers(network: UNet, words: Tensor) -> list[Tensor]:
    """Its answers to noise at each of the timesteps."""
    config, dtype, generator = network.config, network.conv_in.weight.dtype, torch.Generator().manual_seed(1)
    x = torch.randn(2, config.in_channels, config.sample_size, config.sample_size, generator=generator).to(dtype)
    return [network(x, torch.full((2,), float(time)), words.to(dtype)).float() for time in TIMES]


def distance(one: Tensor, other: Tensor) -> float:
    """How far `other` lies from `one`, as a share of its length."""
    return float((other - one).norm() / one.norm())


def error_table(model: Path, optimised: Path) -> Iterator[str]:
    """The U-Net's error by timestep."""
    networks = unet(model), unet(optimised)
    told = words_of(model, networks[0].config.cross_attention_dim)
    yield f"| timestep | {' | '.join(told)} |"
    yield "|---|---|---|"
    exact, other = ([answers(each, words) for words in told.values()] for each in networks)
    errors = [list(map(distance, *both)) for both in zip(exact, other, strict=True)]
    for time, *row in zip(TIMES, *errors, strict=True):
        yield f"| {time} | {' | '.join(f'{100 * each:.2f} %' for each in row)} |"


def quality_table(optimised: Path, pictures: int, steps: int) -> Iterator[str]:
    """The embedded model's pictures: every row draws the same prompts with the same seeds, but where it says so."""
    judge, reference = load_judge(JUDGE), load_reference(JUDGE)
    asked = sample(reference.asking(TRAINED), pictures, 0)
    concepts = torch.tensor([judge.index[each.concept] for each in asked])
    real = reference.of(TRAINED)

    def seen(pipe: fn.Pipeline, seed: int = 0) -> Seen:
        drawn = draw(pipe, [each.text for each in asked], fn.Request(seed=seed, steps=steps))
        scores = (judge.study(drawn).embedding * judge.vectors[concepts]).sum(1)
        return Seen(scores, kid_without_each(reference.project(judge.read(drawn).features), real))

    exact = seen(fn.load(dtype="float32"))
    yield f"{pictures} prompts of trained pairs, {steps} steps\n"
    yield "| | picture-text score | of exact | KID x 1000 | more than exact |"
    yield "|---|---|---|---|---|"
    yield exact.row("float32", exact)
    yield seen(fn.load(optimised)).row("int8", exact)
    yield seen(fn.load(dtype="float32"), SHIFT).row("float32, other seeds", exact)


def main() -> None:
    """Print one of the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("error", "quality"))
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--steps", type=int, default=25)
    asked = parser.parse_args()
    if asked.what == "error":
        table = error_table(*asked.models)
    else:
        table = quality_table(*asked.models, asked.pictures, asked.steps)
    for line in table:
        print(line, flush=True)


if __name__ == "__main__":
    main()
