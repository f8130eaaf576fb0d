"""How much memory a large picture takes, counted without computing anything: tensors on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.models.published import FAMILIES
from fromnoise.models.tiling import decode_tiled, encode_tiled

MIB = 2**20


class Watch(TorchDispatchMode):
    """Counts the bytes of living tensors that operations make, and keeps the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == "meta":
                self._keep(tensor.untyped_storage())
        self.peak = max(self.peak, sum(self.living.values()))
        return out

    def _keep(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.living:
            self.living[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.living.pop, storage._cdata)


def peak(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The most that living tensors take while `run` works, in MiB."""
    with torch.no_grad(), Watch() as watch:
        run(x)
    return watch.peak / MIB


def test_tiles_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # real devices attend without the matrix of weights, which the meta device would count
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: torch.empty_like(q))
    with torch.device("meta"):
        vae = Autoencoder(AutoencoderConfig.from_json(FAMILIES["sdxl"].parts["vae"])).eval()
        latents, pictures = torch.empty(1, 4, 128, 128), torch.empty(1, 3, 1024, 1024)
    assert peak(vae.decode, latents) > 3000
    assert peak(lambda x: decode_tiled(vae, x), latents) < 900
    assert peak(vae.encode, pictures) > 2500
    assert peak(lambda x: encode_tiled(vae, x), pictures) < 750
