"""The noise that torch draws on an NVIDIA card, computed on the CPU, so that other tools' seeds give their pictures.

Philox4x32-10 (Salmon et al. 2011) counts instead of remembering: any number of the stream is a function of seed and
position. torch's CUDA generator puts the number of earlier draws in the counter's first word and the element's index
in its third; the seed is the key. Two of the four words make one normal number (Box and Muller 1958).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROUNDS = 10

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF

_UNIT = float(np.float32(2.0**-32))
_TURN = float(np.float32(2.0**-32) * np.float32(2 * math.pi))

Words = NDArray[np.uint64]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random words for each counter, (4, N) to (4, N), 32 bits held in uint64 (Salmon et al. 2011, sec. 3.3)."""
    first, second, third, fourth = counter
    for number in range(ROUNDS):
        low_key, high_key = ((word + number * weyl) & _WORD for word, weyl in zip(key, _WEYL, strict=True))
        left, right = first * np.uint64(_MULTIPLIERS[0]), third * np.uint64(_MULTIPLIERS[1])
        first, second, third, fourth = (
            (right >> np.uint64(32)) ^ second ^ np.uint64(low_key),
            right & np.uint64(_WORD),
            (left >> np.uint64(32)) ^ fourth ^ np.uint64(high_key),
            left & np.uint64(_WORD),
        )
    return np.stack([first, second, third, fourth])


def philox_normal(seed: int, draw: int, shape: Sequence[int]) -> Tensor:
    """Unit normal noise of `shape`, float32: the `draw`-th (from 0) `torch.randn` after `torch.cuda.manual_seed(seed)`.

    Equal to the card's within float32 rounding, for tensors of up to about 10**5 numbers: beyond what the card has
    threads for, one thread gives several numbers, in an order that depends on the card. At every size it is bit-equal
    to the AUTOMATIC1111 web UI's "NV" source (`modules/rng_philox.py`).
    """
    counter = np.zeros((4, math.prod(shape)), np.uint64)
    counter[0] = draw
    counter[2] = np.arange(counter.shape[1], dtype=np.uint64)
    first, second, _, _ = philox(counter, (seed & _WORD, seed >> 32))
    radius = np.sqrt(-2 * np.log(first * _UNIT + _UNIT / 2))
    normal = radius * np.sin(second * _TURN + _TURN / 2)
    return torch.from_numpy(normal.astype(np.float32)).reshape(tuple(shape))


class PhiloxNoise:
    """One CUDA stream of unit normal noise per picture, drawn on the CPU; used as `runtime.seeds.PictureNoise`.

    Stream k starts at seed k. Each call is one draw, as one call of `torch.randn` for one picture.
    """

    def __init__(self, seeds: list[int], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._seeds = list(seeds)
        self._draws = 0

    def __call__(self, sigma: float | None = None, sigma_next: float | None = None) -> Tensor:
        """The next noise of every picture, (B, *shape) float32; the sigmas are for sources that need them."""
        draw, self._draws = self._draws, self._draws + 1
        return torch.stack([self._draw(seed, draw) for seed in self._seeds])

    def _draw(self, seed: int, draw: int) -> Tensor:
        return philox_normal(seed, draw, self.shape)

    @property
    def state(self) -> Tensor:
        """How often each stream was drawn from, (B,) int64: enough to go on in another process."""
        return torch.full((len(self._seeds),), self._draws)

    @state.setter
    def state(self, state: Tensor) -> None:
        self._draws = int(state.max())


class ComfyNoise(PhiloxNoise):
    """ComfyUI's noise on a computer with an NVIDIA card: the first draw is the CPU's, the steps' own are the card's.

    `prepare_noise` (`comfy/sample.py`) draws the start on the CPU; `default_noise_sampler`
    (`comfy/k_diffusion/sampling.py`) begins a second stream on the card, from the same seed. It holds for one picture
    a request, as ComfyUI draws all pictures of a batch from one stream.
    """

    def _draw(self, seed: int, draw: int) -> Tensor:
        if draw == 0:
            return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))
        return super()._draw(seed, draw - 1)
