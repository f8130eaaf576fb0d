"""A sampler's contract: the Step that it yields, the noise that it asks for, and how it goes on from a Step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from fromnoise.diffusion.denoiser import Denoiser
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write


class Noise(Protocol):
    """Where fresh unit normal noise comes from, (B, C, h, w), for the way from one level to the next.

    `state` says where its streams stand, (B, state) uint8; None for a source that is a pure function of the levels.
    """

    @property
    def state(self) -> Tensor | None: ...

    @state.setter
    def state(self, state: Tensor) -> None: ...

    def __call__(self, sigma: float, sigma_next: float) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """What one step made, and all that is needed to go on from it.

    `index` steps are done; `noisy` (B, C, h, w) went in at level `sigma`; `denoised` is the picture predicted from
    it; `x` came out, at the next level. `history` is the solver's memory, `noise_state` the streams' positions, and
    `guidance` and `reused` the memories of a denoiser and of a network that have one, which whoever made them keeps
    here. Where the pictures of a batch are at different levels (DPM adaptive), `sigma` is the highest. `second_pass`
    says that it is of a drawing's second run, at a larger size.
    """

    index: int
    sigma: float
    noisy: Tensor
    denoised: Tensor
    x: Tensor
    history: tuple[Tensor, ...] = ()
    noise_state: Tensor | None = None
    guidance: tuple[Tensor, ...] = ()
    reused: tuple[Tensor, ...] = ()
    second_pass: bool = False

    def save(self, path: str | Path) -> None:
        """Write as safetensors; a file that is there is replaced."""
        tensors = {"noisy": self.noisy, "denoised": self.denoised, "x": self.x}
        for name in _MEMORIES:
            tensors |= {f"{name}.{index}": each for index, each in enumerate(getattr(self, name))}
        if self.noise_state is not None:
            tensors["noise_state"] = self.noise_state
        place = torch.tensor([self.index, self.sigma, self.second_pass], dtype=torch.float64)
        laid_out = {_CHANNELS_LAST: " ".join(key for key, each in tensors.items() if not each.is_contiguous())}
        tensors = {key: each.clone(memory_format=torch.contiguous_format) for key, each in tensors.items()}
        with atomic_write(Path(path), overwrite=True) as temporary:
            save_file({**tensors, "place": place}, temporary, metadata=laid_out)

    @classmethod
    def read(cls, path: str | Path) -> Step:
        """The step that `save` wrote; UsageError when the file holds none."""
        try:
            tensors: dict[str, Any] = _read_tensors(path)
            index, sigma, *second = tensors.pop("place").tolist()
            memories: dict[str, Any] = {name: _taken(tensors, name) for name in _MEMORIES}
            return cls(index=int(index), sigma=sigma, second_pass=any(second), **memories, **tensors)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise UsageError(f"{path} holds no step that Step.save wrote: {error}") from error


_MEMORIES = ("history", "guidance", "reused")
"""The fields of a Step that hold several tensors."""


_CHANNELS_LAST = "channels_last"
"""Under this a file names the tensors that lie in memory so: going on is bit-exact only from the same layout."""


def _read_tensors(path: str | Path) -> dict[str, Tensor]:
    opened: Any = safe_open(path, "pt")
    with opened as file:
        laid_out: dict[str, str] = file.metadata() or {}
        others = laid_out.get(_CHANNELS_LAST, "").split()
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return {
        key: each.contiguous(memory_format=torch.channels_last) if key in others else each
        for key, each in tensors.items()
    }


def _taken(tensors: dict[str, Tensor], name: str) -> tuple[Tensor, ...]:
    """The tensors called name.0, name.1, …, taken out."""
    count = sum(key.startswith(f"{name}.") for key in tensors)
    return tuple(tensors.pop(f"{name}.{index}") for index in range(count))


Sampler = Callable[..., Iterator[Step]]
"""`sample(denoise, x, sigmas, *, noise, start=None)`: a generator of Steps over `sigmas` (n + 1,)."""


def last(steps: Iterator[Step]) -> Step:
    """Run a drawing to its end; UsageError where it is there already."""
    step = None
    for step in steps:  # noqa: B007
        pass
    if step is None:
        raise UsageError("this drawing is done already; there is no step left to go on with")
    return step


def begin(x: Tensor, noise: Noise | None, start: Step | None) -> Tensor:
    """The latents to go on from; the noise streams are put back where they stood.

    UsageError when they are other streams.
    """
    if start is None:
        return x
    if noise is not None and start.noise_state is not None:
        _put_back(noise, start.noise_state)
    return start.x.to(x.device)


def _put_back(noise: Noise, state: Tensor) -> None:
    now, told = noise.state, "the step to go on from has another kind of noise; give the request that it was made by"
    if now is not None and (now.shape, now.dtype) != (state.shape, state.dtype):
        raise UsageError(told)
    try:
        noise.state = state
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(told) from error


def memory(x: Tensor, start: Step | None) -> tuple[Tensor, ...]:
    """The solver's memory to go on with, where x is; nothing at the beginning."""
    return () if start is None else tuple(each.to(x.device) for each in start.history)


def remaining(sigmas: Tensor, start: Step | None) -> Iterator[tuple[int, float, float]]:
    """Index, level and next level of the steps that are left."""
    levels = [float(each) for each in sigmas]
    for index in range(0 if start is None else start.index, len(levels) - 1):
        yield index, levels[index], levels[index + 1]


def at(x: Tensor, sigma: float) -> Tensor:
    """One level for every picture of x, (B,)."""
    return x.new_full((len(x),), sigma)


def slope(x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """dx/dsigma of the probability-flow equation (Karras et al. 2022, eq. 3 with sigma as the time)."""
    return (x - denoised) / sigma


def toward(x: Tensor, target: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Straight on to the next level, as if `target` were the clean picture: exact for one that does not change.

    Euler's step in sigma, DDIM's in any scaling (Song et al. 2020, eq. 12) and DPM-Solver++'s first-order one (Lu et
    al. 2022, eq. 9) are all this.
    """
    return target + sigma_next / sigma * (x - target)


def ancestral_split(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """The level to step down to, and the level of fresh noise to add: their squares sum to sigma_next squared.

    DDIM's eq. 16 (Song et al. 2020) written in sigma; k-diffusion's `get_ancestral_step`.
    """
    up = min(sigma_next, eta * sigma_next * max(0.0, sigma**2 - sigma_next**2) ** 0.5 / sigma)
    return max(0.0, sigma_next**2 - up**2) ** 0.5, up


def renoise(x: Tensor, noise: Noise | None, amount: float, sigma: float, sigma_next: float) -> Tensor:
    """x with `amount` of fresh noise, drawn for the way from sigma to sigma_next; none is drawn for an amount of 0."""
    return x if noise is None or amount == 0 else x + amount * noise(sigma, sigma_next).to(x)


def state(noise: Noise | None) -> Tensor | None:
    """Where the noise streams stand, for the Step."""
    return None if noise is None else noise.state


def ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise | None,
    start: Step | None,
    eta: float,
    onward: Callable[[Tensor, Tensor, float, float], Tensor],
) -> Iterator[Step]:
    """Every one-step solver as a sampler: `onward` to below the next level, then fresh noise up to it.

    `onward(x, denoised, sigma, down)` is the solver: x at the level `down`, which may be 0. With eta 0 there is no
    noise and `down` is the next level.
    """
    x = begin(x, noise, start)
    for index, sigma, sigma_next in remaining(sigmas, start):
        noisy, denoised = x, denoise(x, at(x, sigma))
        down, up = ancestral_split(sigma, sigma_next, eta)
        x = renoise(onward(x, denoised, sigma, down), noise, up, sigma, sigma_next)
        yield Step(index + 1, sigma, noisy, denoised, x, noise_state=state(noise))
