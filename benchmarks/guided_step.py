"""One guided step of Stable Diffusion 1.5 at 512x512, here, in OpenVINO and in diffusers, alternating, as Markdown.

usage: python benchmarks/guided_step.py [--rounds 5] [--float32] [--without-diffusers] [--int8 FOLDER] [--nncf MODEL]
                                                                       (needs diffusers and openvino; about 9 GiB)

The U-Net is diffusers' own at the published configuration with random weights; a guided step is one call of two rows.
All run in bfloat16 where the CPU computes with it, else in float32. What counts is the median of wall seconds, after
one warm-up. `--float32` adds diffusers at its default precision, `--int8` a model of ours in int8 (make_checkpoint.py
sd1, then fromnoise optimize), `--nncf` OpenVINO's in int8 (nncf_unet.py). `--converted MODEL.xml` is diffusers' U-Net
as OpenVINO has it, written by nncf_unet.py, and saves converting it again. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import openvino
import torch
from diffusers import UNet2DConditionModel
from timing import Call, medians
from torch import Tensor, nn

from fromnoise.checkpoints import open_checkpoint
from fromnoise.engines.eager import pack, pack_numbers, use_kernels
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.pipeline.loading import filled
from fromnoise.runtime.device import cpu_name, product_dtype

CONFIG = {
    "sample_size": 64,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
TIME = torch.tensor(500)
DTYPE = product_dtype(torch.device("cpu"))
SAID, HINT = ("float32", "f32") if torch.float32 == DTYPE else ("bf16", "bf16")
PEER = f"OpenVINO, {SAID}"


class Plain(nn.Module):
    """diffusers' network with tensors in and a tensor out."""

    def __init__(self, network: UNet2DConditionModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, time: Tensor, words: Tensor) -> Tensor:
        """(2, 4, 64, 64), () and (2, 77, 768) to (2, 4, 64, 64)."""
        return self.network(x, time, words, return_dict=False)[0]


def ours(reference: UNet2DConditionModel, x: Tensor, words: Tensor) -> Call:
    """The eager engine."""
    with torch.device("meta"):
        network = UNet(UNetConfig()).eval()
    network.load_state_dict({key: each.to(DTYPE) for key, each in reference.state_dict().items()}, assign=True)
    network.requires_grad_(False)
    pack(network)
    use_kernels(network)
    return lambda: network(x.to(DTYPE), TIME.float().expand(2), words.to(DTYPE))


def ours_in_int8(folder: Path, x: Tensor, words: Tensor) -> Call:
    """The eager engine with the U-Net of a model that fromnoise optimize wrote."""
    network = filled(open_checkpoint(folder).parts["unet"], torch.device("cpu"), DTYPE)
    pack_numbers(network)
    pack(network)
    use_kernels(network)
    return lambda: network(x.to(DTYPE), TIME.float().expand(2), words.to(DTYPE))


def converted(reference: UNet2DConditionModel, inputs: tuple[Tensor, ...]) -> openvino.Model:
    """diffusers' module as OpenVINO has it."""
    sizes = [list(each.shape) for each in inputs]
    return openvino.convert_model(Plain(reference), example_input=inputs, input=sizes)


def in_openvino(model: openvino.Model | Path, inputs: tuple[Tensor, ...]) -> Call:
    """A model, or a file of one, at the hint of that number format."""
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": HINT})
    arrays = [each.numpy() for each in inputs]
    return lambda: compiled(arrays)


def in_diffusers(reference: UNet2DConditionModel, inputs: tuple[Tensor, ...], float32: bool) -> dict[str, Call]:
    """diffusers in that number format, and at its default precision where that is another and asked for."""
    x, time, words = inputs
    whole, both = Plain(reference), float32 and torch.float32 != DTYPE
    low = (copy.deepcopy(whole) if both else whole).to(DTYPE)
    calls: dict[str, Call] = {f"diffusers, {SAID}": lambda: low(x.to(DTYPE), time, words.to(DTYPE))}
    return calls | ({"diffusers, float32": lambda: whole(*inputs)} if both else {})


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--without-diffusers", action="store_true")
    parser.add_argument("--int8", type=Path, metavar="FOLDER")
    parser.add_argument("--nncf", type=Path, metavar="MODEL.xml")
    parser.add_argument("--converted", type=Path, metavar="MODEL.xml")
    args = parser.parse_args()
    torch.manual_seed(0)
    x, words = torch.randn(2, 4, 64, 64), torch.randn(2, 77, 768)
    reference = UNet2DConditionModel(**CONFIG).eval().requires_grad_(False)
    inputs = (x, TIME, words)
    calls: dict[str, Call] = {f"fromnoise eager, {SAID}": ours(reference, x, words)}
    if not args.converted:
        calls[PEER] = in_openvino(converted(reference, inputs), inputs)
    if not args.without_diffusers:
        calls |= in_diffusers(reference, inputs, args.float32)
    del reference
    if args.converted:
        calls[PEER] = in_openvino(args.converted, inputs)
    if args.nncf:
        calls["OpenVINO, int8 by NNCF"] = in_openvino(args.nncf, inputs)
    if args.int8:
        calls["fromnoise eager, int8"] = ours_in_int8(args.int8, x, words)
    seconds = medians(calls, args.rounds)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.rounds} rounds\n")
    print("| | seconds | of OpenVINO's |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {each:.2f} | {each / seconds[PEER]:.2f} |")


if __name__ == "__main__":
    main()
