"""k-diffusion's sampling module alone: the package asks for much that sampling does not use."""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import cache
from importlib.metadata import distribution
from typing import Any


@cache
def sampling() -> Any:
    """The module `k_diffusion.sampling`."""
    root = distribution("k-diffusion").locate_file("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(root)]  # type: ignore[attr-defined]
    sys.modules.setdefault("k_diffusion", package)
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]  # type: ignore[attr-defined]
    sys.modules.setdefault("k_diffusion.utils", utils)
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", f"{root}/sampling.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
