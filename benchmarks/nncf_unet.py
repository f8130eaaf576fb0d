"""diffusers' U-Net of Stable Diffusion 1.5 in OpenVINO's own int8, as a peer for guided_step.py.

usage: python benchmarks/nncf_unet.py convert FOLDER     (needs diffusers and openvino; writes FOLDER/float32.xml)
       python benchmarks/nncf_unet.py quantise FOLDER    (needs nncf and openvino; writes FOLDER/int8.xml)

Two steps, because NNCF wants other packages than torch does. The weights are those of guided_step.py. It is calibrated
on few and small inputs: what is compared is time, which doesn't depend on the ranges that are found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SIDE, WORDS = 16, 77
"""Latents that it is calibrated on, and the words."""


def convert(folder: Path) -> None:
    """Write diffusers' module as OpenVINO has it."""
    import openvino
    import torch
    from diffusers import UNet2DConditionModel
    from guided_step import CONFIG, TIME, Plain

    torch.manual_seed(0)
    inputs = (torch.randn(2, 4, 64, 64), TIME, torch.randn(2, WORDS, 768))
    reference = UNet2DConditionModel(**CONFIG).eval().requires_grad_(False)
    traced = (inputs[0][..., :SIDE, :SIDE].clone(), *inputs[1:])
    model = openvino.convert_model(Plain(reference), example_input=traced)
    model.reshape({port: list(each.shape) for port, each in zip(model.inputs, inputs, strict=True)})
    openvino.save_model(model, folder / "float32.xml", compress_to_fp16=False)


def quantise(folder: Path) -> None:
    """Write that in int8."""
    import nncf
    import numpy
    import openvino

    model = openvino.Core().read_model(folder / "float32.xml")
    sizes = [list(port.shape) for port in model.inputs]
    model.reshape({port: [2, 4, SIDE, SIDE] if len(size) == 4 else size
                   for port, size in zip(model.inputs, sizes, strict=True)})  # fmt: skip
    draw = numpy.random.default_rng(0)
    given = {
        0: draw.standard_normal((2, 4, SIDE, SIDE)).astype("float32"),
        1: numpy.int64(500),
        2: draw.standard_normal((2, WORDS, 768)).astype("float32"),
    }
    more = nncf.AdvancedQuantizationParameters(disable_bias_correction=True, smooth_quant_alpha=-1)
    made = nncf.quantize(
        model, nncf.Dataset([given]), subset_size=1, model_type=nncf.ModelType.TRANSFORMER, advanced_parameters=more
    )
    made.reshape(dict(zip(made.inputs, sizes, strict=True)))
    openvino.save_model(made, folder / "int8.xml")


def main() -> None:
    """Do one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("convert", "quantise"))
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    {"convert": convert, "quantise": quantise}[asked.what](asked.folder)


if __name__ == "__main__":
    main()
