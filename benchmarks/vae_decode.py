"""One decode by Stable Diffusion 1.5's autoencoder at 512x512, here, in OpenVINO and in diffusers, alternating.

usage: python benchmarks/vae_decode.py [--rounds 5] [--size 512]      (needs diffusers and openvino; about 6 GiB)

The autoencoder is diffusers' own at the published configuration with random weights, one picture a call. OpenVINO runs
diffusers' module at its bfloat16 hint. What counts is the median of wall seconds, after one warm-up; errors are
those of the pixels against float32 (norms of the difference and of the whole). Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse

import openvino
import torch
from diffusers import AutoencoderKL
from timing import Call, medians
from torch import Tensor, nn

from fromnoise.engines.eager import pack, use_kernels
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.runtime.device import channels_last, cpu_name
from fromnoise.runtime.memory import kept

CONFIG = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
PEER = "OpenVINO, bf16"


class Plain(nn.Module):
    """diffusers' decoder with a tensor in and a tensor out."""

    def __init__(self, network: AutoencoderKL) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor) -> Tensor:
        """(1, 4, h, w) to (1, 3, 8 h, 8 w)."""
        return self.network.decode(latents, return_dict=False)[0]


def ours(reference: AutoencoderKL, latents: Tensor) -> Call:
    """The eager engine in bfloat16."""
    network = Autoencoder(AutoencoderConfig(scaling_factor=1.0)).bfloat16().eval().requires_grad_(False)
    network.load_state_dict(reference.state_dict())
    pack(network)
    use_kernels(network)

    def call() -> Tensor:
        with kept():
            return network.decode(latents.bfloat16())

    return call


def in_openvino(reference: AutoencoderKL, latents: Tensor) -> Call:
    """diffusers' module, converted, at the bfloat16 hint."""
    model = openvino.convert_model(Plain(reference), example_input=latents, input=[list(latents.shape)])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    return lambda: torch.from_numpy(compiled([latents.numpy()])[0])


def in_diffusers(reference: AutoencoderKL, latents: Tensor) -> Call:
    """diffusers' module in bfloat16, channels last."""
    half = AutoencoderKL(**CONFIG).bfloat16().eval().requires_grad_(False)
    half.load_state_dict(reference.state_dict())
    channels_last(half)
    return lambda: half.decode(latents.bfloat16(), return_dict=False)[0]


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    torch.manual_seed(0)
    latents = torch.randn(1, 4, args.size // 8, args.size // 8)
    reference = AutoencoderKL(**CONFIG).eval().requires_grad_(False)
    calls: dict[str, Call] = {
        PEER: in_openvino(reference, latents),
        "fromnoise eager, bf16": ours(reference, latents),
        "diffusers, bf16, channels last": in_diffusers(reference, latents),
    }
    exact = reference.decode(latents, return_dict=False)[0]
    errors = {name: float((call() - exact).norm() / exact.norm()) for name, call in calls.items()}
    seconds = medians(calls, args.rounds)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.rounds} rounds\n")
    print("| | seconds | of OpenVINO's | error |\n|---|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {each:.2f} | {each / seconds[PEER]:.2f} | {errors[name]:.1e} |")


if __name__ == "__main__":
    main()
