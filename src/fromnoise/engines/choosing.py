"""Which engine runs a piece of work: by what is installed, what the work needs, and whether compiling pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fromnoise.engines.names import AUTO, EAGER, OPENVINO

SECONDS = 3.5e-13
"""Seconds of eager work a parameter and latent pixel: two rows of Stable Diffusion 1.5 are taken to need 2.5 s."""

LONG = 20.0
"""Seconds of work below which the other engines aren't looked at."""


@dataclass(frozen=True)
class Pace:
    """How an engine compares with the eager one on Stable Diffusion 1.5 in bfloat16.

    `time` is its time as a share of eager's (measured, see docs/speed.md); preparing takes about `first` seconds per
    100 million parameters, and about `again` when the compiled model is on the disk (rough, from contended runs).
    """

    time: float
    first: float
    again: float


PACES: Mapping[str, Pace] = MappingProxyType({OPENVINO: Pace(time=1.05, first=12.0, again=1.0)})
"""The engines that `auto` weighs against the eager one. torch.compile has not been measured at this size: it isn't."""


@dataclass(frozen=True)
class Work:
    """What is to be run: `calls` calls of a network of so many `parameters` on `pixels` latents, all rows together.

    `needs` names what only the eager module can do: "adapters", "perturbed attention".
    """

    calls: int
    parameters: int
    pixels: int
    device: str = "cpu"
    needs: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """About how long the eager engine takes for all calls together."""
        return SECONDS * self.calls * self.parameters * self.pixels


@dataclass(frozen=True)
class Choice:
    """An engine's name, and why it and no other."""

    engine: str
    why: str


@dataclass(frozen=True)
class State:
    """An engine here and now: `missing` is None or why it can't be used, `cached` that its model is on the disk."""

    missing: str | None
    cached: bool = False


def choose(asked: str, work: Work, states: Mapping[str, State]) -> Choice:
    """The engine for the work: the one asked for where it can do it, or for "auto" the one that is done first."""
    if work.needs:
        return Choice(EAGER, f"{' and '.join(work.needs)} need the eager engine")
    if asked != AUTO:
        return Choice(asked, "it was asked for")
    if work.device != "cpu":
        return Choice(EAGER, "the device has its own fast kernels")
    times = {name: finished(name, work, states[name]) for name in PACES if name in states and not states[name].missing}
    best = min(times, key=lambda name: times[name], default=EAGER)
    if best == EAGER or times[best] >= work.seconds:
        return Choice(EAGER, "nothing else would be done sooner")
    return Choice(best, "its compiled model is on the disk" if states[best].cached else "compiling pays for this work")


def considered(asked: str, work: Work) -> bool:
    """False when `choose` needs no look at the other engines, whatever their state: a look hashes all weights."""
    faster = any(each.time < 1 for each in PACES.values())
    return faster and asked == AUTO and not work.needs and work.device == "cpu" and work.seconds >= LONG


def finished(name: str, work: Work, state: State) -> float:
    """Seconds until an engine has done the work, preparing included."""
    pace = PACES[name]
    return (pace.again if state.cached else pace.first) * work.parameters / 1e8 + pace.time * work.seconds
