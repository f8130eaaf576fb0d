"""OpenVINO: Intel's engine for CPUs, on our own modules converted by tracing.

The compiled model is kept as OpenVINO exports it, weights included in half precision, and mapped from the disk.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from fromnoise.engines.cache import Entry, Facts, Store
from fromnoise.engines.contract import Inputs, Prepared, difference
from fromnoise.engines.identity import depends
from fromnoise.engines.names import OPENVINO
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.log import note

TRACED = 16
"""Sides of the maps that a module is traced with; tracing runs it, so small ones save minutes."""

WRONG = 0.2
"""A difference from eager beyond what half precision can make: the conversion went wrong."""

PRECISIONS = {torch.bfloat16: "bf16", torch.float32: "f32", torch.float16: "f16"}


class OpenVINO:
    """Runs float32 modules in float32 and bfloat16 ones in bfloat16."""

    name = OPENVINO

    def available(self) -> str | None:
        """None when the package is there."""
        missing = "the engine openvino isn't installed; pip install fromnoise[openvino], or use --engine eager"
        return None if _version() else missing

    def cached(self, module: nn.Module, inputs: Inputs, store: Store) -> bool:
        """True when the compiled model is on the disk."""
        return store.has(_depends(module, inputs))

    @torch.inference_mode()
    def prepare(self, module: nn.Module, inputs: Inputs, store: Store) -> Prepared:
        """The compiled model, converted and compiled where the disk has none. FromnoiseError when OpenVINO fails."""
        began = time.perf_counter()
        needed, config = _depends(module, inputs), _config(module)
        found = store.find(needed)
        entry = found or store.make(needed, lambda folder: _compiled(module, inputs, folder, config))
        run = _Run(entry, config)
        return Prepared(self.name, run, entry.facts["difference"], time.perf_counter() - began, found is not None)


class _Run:
    """A compiled model from the disk; calls from several threads take turns."""

    def __init__(self, entry: Entry, config: dict[str, str]) -> None:
        import openvino  # pyright: ignore[reportMissingImports]

        self._mapped = numpy.memmap(entry.folder / "model.blob", dtype=numpy.uint8, mode="r")
        compiled = openvino.Core().import_model(openvino.Tensor(self._mapped), "CPU", config)
        self._request, self._lock = compiled.create_infer_request(), Lock()

    def __call__(self, *inputs: Tensor) -> Tensor:
        with self._lock:
            self._request.infer([each.detach().numpy() for each in inputs], share_inputs=True)
            return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


@cache
def _version() -> str | None:
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


def _depends(module: nn.Module, inputs: Inputs) -> dict[str, Any]:
    return depends(OPENVINO, str(_version()), module, inputs, config=_config(module))


def _config(module: nn.Module) -> dict[str, str]:
    """OpenVINO's settings: the module's own precision, one call at a time on torch's threads."""
    precision = PRECISIONS[next(module.parameters()).dtype]
    threads = str(torch.get_num_threads())
    return {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}


def _compiled(module: nn.Module, inputs: Inputs, folder: Path, config: dict[str, str]) -> Facts:
    """Fill an entry's folder; gives the measured difference from eager."""
    note("openvino: converting and compiling the model, once")
    half = next(module.parameters()).dtype != torch.float32
    write_model(convert(module, inputs), folder, inputs, half=half)
    _in_child(folder, config)
    answer, reference = torch.from_numpy(numpy.load(folder / "output.npy")), module(*inputs)
    found = difference(answer, reference)
    for name in ("model.xml", "model.bin", "inputs.npz", "output.npy"):
        (folder / name).unlink()
    if not found < WRONG:
        raise FromnoiseError(f"its answer differs by {found:.1e} from torch's")
    return {"difference": found}


def convert(module: nn.Module, inputs: Inputs) -> Any:
    """The module as an OpenVINO model for inputs of these shapes; traced on smaller maps, which is much faster.

    It goes by OpenVINO's PyTorch front end itself: `openvino.convert_model` reports its use over the network.
    """
    from openvino.frontend import FrontEndManager  # pyright: ignore[reportMissingImports]
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # pyright: ignore[reportMissingImports]

    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        example = tuple((each[..., :TRACED, :TRACED] if each.ndim == 4 else each).clone() for each in inputs)
        front = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(module, example_input=example)  # must outlive the conversion
        model = front.convert(front.load(decoder))
    model.reshape({port: list(each.shape) for port, each in zip(model.inputs, inputs, strict=True)})
    return model


def write_model(model: Any, folder: Path, inputs: Inputs, *, half: bool) -> None:
    """A model, its weights in half precision perhaps, and what to try it with, as `openvino_child` reads them."""
    import openvino  # pyright: ignore[reportMissingImports]

    openvino.save_model(model, folder / "model.xml", compress_to_fp16=half)
    named = {f"input{index}": each.numpy() for index, each in enumerate(inputs)}
    numpy.savez(folder / "inputs.npz", **named)  # pyright: ignore[reportArgumentType]


def _in_child(folder: Path, config: dict[str, str]) -> None:
    """Compile and try the model in another process; FromnoiseError when that fails or crashes."""
    command = [
        sys.executable,
        "-P",
        str(Path(__file__).with_name("openvino_child.py")),
        str(folder),
        json.dumps(config),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode < 0:
        raise FromnoiseError(f"OpenVINO crashed with {signal.Signals(-done.returncode).name} on this CPU")
    if done.returncode:
        raise FromnoiseError(f"OpenVINO: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
