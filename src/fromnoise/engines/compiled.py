"""torch's own compiler, ahead of time: a shared library with the weights folded in, kept on the disk.

A second process loads the library and starts at once; `torch.compile` would trace and look everything up again.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from torch import nn

from fromnoise.engines.cache import Facts, Store
from fromnoise.engines.contract import Inputs, Prepared, difference
from fromnoise.engines.identity import depends
from fromnoise.engines.names import COMPILE
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.log import note

PACKAGE = "model.pt2"

SETTINGS = {"freezing": True}
"""Inductor's: weights are constants, so that oneDNN packs them when compiling and not at every call."""


class Compiled:
    """Compiles with torch's inductor; it needs a C++ compiler, the first time only."""

    name = COMPILE

    def available(self) -> str | None:
        """None when a C++ compiler is there."""
        if any(shutil.which(each) for each in ("g++", "clang++", "cl")):
            return None
        return "the engine compile needs a C++ compiler (g++ or clang++); install one, or use --engine eager"

    def cached(self, module: nn.Module, inputs: Inputs, store: Store) -> bool:
        """True when the library is on the disk."""
        return store.has(depends(self.name, torch.__version__, module, inputs))

    def prepare(self, module: nn.Module, inputs: Inputs, store: Store) -> Prepared:
        """The library, compiled where the disk has none. FromnoiseError when torch can't compile the module."""
        began = time.perf_counter()
        needed = depends(self.name, torch.__version__, module, inputs)
        found = store.find(needed)
        entry = found or store.make(needed, lambda folder: _compiled(module, inputs, folder))
        run = torch._inductor.aoti_load_package(str(entry.folder / PACKAGE))
        return Prepared(self.name, run, entry.facts["difference"], time.perf_counter() - began, found is not None)


def _compiled(module: nn.Module, inputs: Inputs, folder: Path) -> Facts:
    """Fill an entry's folder; gives the measured difference from eager."""
    note("compile: compiling the model, once; this takes minutes")
    package = folder / PACKAGE
    with torch.inference_mode(False), torch.no_grad():
        own = tuple(each.clone() for each in inputs)  # tensors made for inference can't be traced
        try:
            program = torch.export.export(module, own)
            torch._inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=SETTINGS)
        except Exception as error:  # the compiler's errors have no common base
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise FromnoiseError(f"torch can't compile it: {reason}") from error
        answer = torch._inductor.aoti_load_package(str(package))(*own)
        return {"difference": difference(answer, module(*own))}
