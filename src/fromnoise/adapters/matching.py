"""An adapter's layers found in a model, strictly: what has no place is told, what has none at all is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fromnoise.adapters.factors import Factors, Layer
from fromnoise.adapters.families import TITLES, family_of, title
from fromnoise.adapters.keys import layers, spellings
from fromnoise.adapters.reading import Adapter
from fromnoise.checkpoints.report import first_of
from fromnoise.nn.convolution import shape_of
from fromnoise.runtime.errors import FromnoiseError


@dataclass(frozen=True)
class Place:
    """A layer of a model and what an adapter adds to it."""

    layer: Layer
    factors: Factors

    def delta(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The delta in the shape of the layer's weight."""
        return self.factors.to(device, dtype).delta().reshape(self.layer.weight.shape)


@dataclass(frozen=True)
class Matched:
    """Where an adapter's deltas go: `places` by part and by the layer's name in the model.

    `unplaced` are the file's names (with their parts) that the model has no layer for, `absent` its parts that were not
    given.
    """

    adapter: Adapter
    places: Mapping[str, Mapping[str, Place]]
    unplaced: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """How many of a part's deltas found their layer, and of how many."""
        return {part: (len(self.places.get(part, ())), len(named)) for part, named in self.adapter.parts.items()}

    def __str__(self) -> str:
        """One line for a person."""
        counts = ", ".join(f"{part} {found} of {number}" for part, (found, number) in self.counts.items())
        left = f"; no place for {first_of(self.unplaced)}" if self.unplaced else ""
        return f"{self.adapter.name} ({self.adapter.kind}): {counts}{left}"


def match(adapter: Adapter, modules: Mapping[str, nn.Module]) -> Matched:
    """Find the layers that an adapter changes, in a model's parts by diffusers' folder names.

    Raises FromnoiseError when nothing matches, or when the adapter belongs to another family than the model, because
    its metadata says so or because its shapes differ; it names the file and the first keys.
    """
    _require_family(adapter, family_of(modules))
    places: dict[str, dict[str, Place]] = {}
    unplaced, misshapen = [], []
    for part, named in adapter.parts.items():
        if part not in modules:
            continue
        table, found = spellings(part, modules[part]), layers(modules[part])
        for name, factors in named.items():
            own = table.get(name)
            if own is None:
                unplaced.append(f"{part}: {name}")
            elif factors.size != (size := _size(found[own])):
                misshapen.append(f"{part}: {name} {list(factors.size)} instead of {list(size)}")
            else:
                _put(places.setdefault(part, {}), own, Place(found[own], factors), adapter)
    absent = tuple(part for part in adapter.parts if part not in modules)
    _require_fitting(adapter, places, unplaced, misshapen, modules)
    return Matched(adapter, places, tuple(unplaced), absent)


def _size(layer: Layer) -> tuple[int, int]:
    outputs, *inputs = shape_of(layer)
    return outputs, math.prod(inputs)


def _put(places: dict[str, Place], name: str, place: Place, adapter: Adapter) -> None:
    if name in places:
        raise FromnoiseError(f"{adapter.where} names the layer {name} twice, in different layouts")
    places[name] = place


def _require_family(adapter: Adapter, family: str | None) -> None:
    """FromnoiseError when both generations are known and differ."""
    trained = adapter.family
    if family and trained and trained in TITLES and trained != family:
        raise FromnoiseError(
            f"{adapter.where} was trained on {title(trained)}, and this model is {title(family)}; "
            f"its first keys: {first_of(adapter.keys)}"
        )


def _require_fitting(
    adapter: Adapter,
    places: Mapping[str, Mapping[str, Place]],
    unplaced: list[str],
    misshapen: list[str],
    modules: Mapping[str, nn.Module],
) -> None:
    if misshapen:
        raise FromnoiseError(
            f"{adapter.where} belongs to another model{_trained_on(adapter)}: {len(misshapen)} of its layers have "
            f"other sizes ({first_of(misshapen)})"
        )
    if not places:
        given = ", ".join(modules)
        raise FromnoiseError(
            f"{adapter.where} matches nothing in this model's {given}{_trained_on(adapter)}; "
            f"its first keys: {first_of(unplaced or adapter.keys)}"
        )


def _trained_on(adapter: Adapter) -> str:
    return f" (it was trained on {title(adapter.family)})" if adapter.family else ""
