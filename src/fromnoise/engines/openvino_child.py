"""Compile an OpenVINO model and try it, in a process of its own: what crashes here takes no drawing down with it.

usage: python openvino_child.py FOLDER CONFIG        (CONFIG is JSON)

FOLDER holds model.xml and inputs.npz; model.blob and output.npy are written beside them. It imports OpenVINO and
numpy alone, so it starts fast and holds no second copy of the weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy
import openvino  # pyright: ignore[reportMissingImports]


def main(folder: Path, config: dict[str, str]) -> None:
    """Compile, write the compiled model, read it back as a drawing will, and run it once."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(folder / "model.xml"), "CPU", config)
    (folder / "model.blob").write_bytes(compiled.export_model().getvalue())
    del compiled
    blob = openvino.Tensor(numpy.memmap(folder / "model.blob", dtype=numpy.uint8, mode="r"))
    with numpy.load(folder / "inputs.npz") as inputs:
        given = [inputs[name] for name in inputs.files]
    numpy.save(folder / "output.npy", core.import_model(blob, "CPU", config)(given)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
