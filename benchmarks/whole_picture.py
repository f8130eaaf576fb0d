"""A whole picture of Stable Diffusion 1.5 at 512x512: ours with --quality balanced, OpenVINO with 20 steps, in turns.

usage: python benchmarks/whole_picture.py CHECKPOINT FOLDER [--rounds 1]      (needs diffusers and openvino; 9 GiB once)

OpenVINO runs diffusers' own U-Net and decoder, with random weights, at the bfloat16 hint: 20 calls of two rows with
Euler's arithmetic between them, and a decode. Both are converted into FOLDER the first time. Ours draws CHECKPOINT (see
make_checkpoint.py) from the words to the pixels, encoding the words included. Both are warm: one step was drawn before.
Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import guided_step
import numpy as np
import openvino
import torch
import vae_decode
from timing import Call, medians

from fromnoise.pipeline import Pipeline, load
from fromnoise.runtime.device import cpu_name

STEPS = 20
SIZE = (512, 512)
SEED = 1


@torch.inference_mode()
def convert(folder: Path) -> None:
    """diffusers' U-Net and decoder as OpenVINO's files."""
    shapes = (2, 4, 64, 64), (), (2, 77, 768)
    unet = guided_step.UNet2DConditionModel(**guided_step.CONFIG).eval().requires_grad_(False)
    inputs = torch.randn(shapes[0]), torch.tensor(500), torch.randn(shapes[2])
    made = openvino.convert_model(guided_step.Plain(unet), example_input=inputs, input=[list(each) for each in shapes])
    openvino.save_model(made, folder / "unet.xml")  # which rounds to float16
    del made, unet
    vae = vae_decode.AutoencoderKL(**vae_decode.CONFIG).eval().requires_grad_(False)
    latents = torch.randn(1, 4, 64, 64)
    made = openvino.convert_model(vae_decode.Plain(vae), example_input=latents, input=[list(latents.shape)])
    openvino.save_model(made, folder / "decoder.xml")


def in_openvino(folder: Path) -> Call:
    """A guided Euler loop of diffusers' modules and a decode; the noise levels are those of SD 1."""
    core, hint = openvino.Core(), {"INFERENCE_PRECISION_HINT": "bf16"}
    unet, decoder = (core.compile_model(folder / name, "CPU", hint) for name in ("unet.xml", "decoder.xml"))
    random = np.random.default_rng(0)
    words = random.standard_normal((2, 77, 768), dtype=np.float32)
    sigmas = np.append(np.geomspace(14.6, 0.03, STEPS, dtype=np.float32), 0.0)

    def call(steps: int = STEPS) -> object:
        x = random.standard_normal((1, 4, 64, 64), dtype=np.float32) * sigmas[0]
        for index in range(steps):
            scaled = (x / np.sqrt(sigmas[index] ** 2 + 1)).repeat(2, 0)
            time = np.array(999 - index * 50, dtype=np.int64)
            without, given = np.split(unet([scaled, time, words])[0], 2)
            x = x + (sigmas[index + 1] - sigmas[index]) * (without + 7.5 * (given - without))
        return decoder([x / 0.18215])[0].clip(-1, 1)

    call(1)
    return call


def ours(pipe: Pipeline) -> Call:
    """The same size by `--quality balanced`."""
    pipe("a cottage", seed=SEED, size=SIZE, steps=1)
    return lambda: pipe("a red cottage by a lake", quality="balanced", seed=SEED, size=SIZE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--convert", action="store_true", help="only make FOLDER's files")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if not (args.folder / "decoder.xml").exists():
        convert(args.folder)
    if args.convert:
        return
    peer, own = f"OpenVINO, {STEPS} steps", "fromnoise, balanced"
    seconds = medians({peer: in_openvino(args.folder), own: ours(load(args.checkpoint))}, args.rounds, warm_up=0)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.rounds} rounds\n")
    print("| | seconds | of OpenVINO's |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {each:.2f} | {each / seconds[peer]:.2f} |")


if __name__ == "__main__":
    main()
