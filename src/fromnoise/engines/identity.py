"""What a compiled model depends on: weights, config, shapes, versions and the CPU."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from fromnoise.engines.contract import Inputs
from fromnoise.nn.convolution import dense
from fromnoise.runtime.device import cpu_name

_fingerprints: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


def depends(engine: str, version: str, module: nn.Module, inputs: Inputs, **more: Any) -> dict[str, Any]:
    """Everything that makes a compiled model another one, for `Store`; `module.facts()` states its config."""
    return {
        "engine": engine,
        "versions": {"fromnoise": _own_version(), "torch": torch.__version__, engine: version},
        "cpu": cpu_name(),
        "threads": torch.get_num_threads() if engine == "compile" else None,
        "facts": module.facts(),  # pyright: ignore[reportCallIssue]
        "weights": fingerprint(module),
        "inputs": [[list(each.shape), str(each.dtype)] for each in inputs],
        **more,
    }


def fingerprint(module: nn.Module) -> str:
    """The SHA-256 of a module's weights, with their names, shapes and formats; about a second for SD 1.5's U-Net.

    It is kept for as long as no weight is replaced or changed in place.
    """
    (inner,) = module.children()
    state = tuple((id(each), _version(each)) for each in inner.parameters())
    known = _fingerprints.get(inner)
    if known is None or known[0] != state:
        known = _fingerprints[inner] = state, _digest(inner.state_dict())
    return known[1]


def _own_version() -> str:
    """The package's; the layers below may not import the package itself."""
    return str(sys.modules["fromnoise"].__version__)


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; tensors made for inference don't count."""
    return 0 if tensor.is_inference() else tensor._version


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    state = hashlib.sha256()
    for name, tensor in tensors.items():
        state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        state.update(dense(tensor).detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
