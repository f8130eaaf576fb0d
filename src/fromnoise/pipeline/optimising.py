"""A model's U-Net put into 8 bits, calibrated on its own drawings, and what that loses measured on others.

The layers that cost most and forgive most go: the residual blocks' convolutions and the transformers' feed-forwards.
What leads straight to the output (first and last layers, shortcuts, resampling, projections) would lose most and
gains little (docs/log.md).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.checkpoints import Checkpoint, open_checkpoint
from fromnoise.checkpoints.building import quantisation
from fromnoise.checkpoints.checkpoint import QUANTISATION
from fromnoise.checkpoints.stored import Stored
from fromnoise.hub import found
from fromnoise.nn.convolution import shape_of
from fromnoise.nn.eight_bit import EightBitConv2d, EightBitLinear, may_mix, supported, whole
from fromnoise.nn.fitting import filled, fitted
from fromnoise.pipeline.drawing import Pipeline
from fromnoise.pipeline.loading import load
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL

TAKEN = re.compile(r"\.resnets\.\d+\.conv[12]$|\.ff\.net\.0\.proj$|\.ff\.net\.2$")
"""Layers that may go into 8 bits, by name."""

PROMPTS = ("a red apple", "portrait of an old man", "a city street at night in the rain", "a grinning face")
"""What is drawn to see the layers' inputs, where nothing else is said."""

OTHERS = ("a lighthouse on a cliff", "a cat")
"""What the loss is measured on."""

STEPS = 4
"""Steps of each of those drawings: noise levels from the first to the last."""

ROWS = 128
"""Inputs kept of each call of a layer: pixels or tokens with all their channels."""

ERROR = 0.03
"""The U-Net's output error that is allowed, where nothing else is said."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Call:
    """A call of the U-Net: what it was given, and what it answered."""

    given: tuple[Any, ...]
    answer: Tensor

    @property
    def time(self) -> float:
        """The timestep."""
        return float(self.given[1].max())


@dataclass
class Seen:
    """What is known of a layer: inputs (R, I) sampled from its calls, and the multiplications of a call."""

    rows: list[Tensor] = field(default_factory=list)
    work: float = 0.0

    def watch(self, layer: nn.Linear | nn.Conv2d, given: tuple[Tensor, ...], _: Tensor) -> None:
        """Keep some of a call's inputs, evenly spread."""
        x = given[0]
        last = x if isinstance(layer, nn.Linear) else x.permute(0, 2, 3, 1)
        rows = last.reshape(-1, last.shape[-1])
        self.rows.append(rows[torch.linspace(0, len(rows) - 1, ROWS).long()].clone())
        self.work = float(len(rows) * prod(shape_of(layer)))


@dataclass(frozen=True)
class Optimised:
    """A checkpoint with 8-bit layers, not yet written: how many layers of how many, what share of the U-Net's weights
    they hold, and by how much its answers differ at each timestep that was tried: |8 bits - exact| / |exact|.
    """

    checkpoint: Checkpoint
    layers: int
    candidates: int
    share: float
    errors: Mapping[float, float]

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return sum(self.errors.values()) / len(self.errors)


def optimise(
    model: str | Path | None = None,
    *,
    prompts: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    error: float = ERROR,
    progress: Progress = lambda done, total: None,
) -> Optimised:
    """A checkpoint's U-Net in 8 bits, as many of its layers as lose no more than `error` together.

    `prompts` are what it is calibrated on, at `size` (the model's own). Raises UsageError when the model is in 8 bits
    already or this CPU can't compute so, FromnoiseError when it can't be read.
    """
    if not supported():
        raise UsageError("int8 needs a CPU with AVX512-VNNI or AMX; this one is fastest with --dtype auto as it is")
    checkpoint = open_checkpoint(EMBEDDED_MODEL if model is None else found(model))
    if "unet" not in checkpoint.parts or QUANTISATION in checkpoint.parts["unet"].config:
        raise UsageError(f"{checkpoint.path} has no U-Net to optimise, or one that is in int8 already")
    work = Optimising(load(model, device="cpu", engine="eager"), checkpoint, size)
    work.calibrate(prompts or PROMPTS, progress)
    work.fit(progress)
    errors = work.within(error)
    return work.result(errors)


class Optimising:
    """The work on one model, step by step."""

    def __init__(self, pipe: Pipeline, checkpoint: Checkpoint, size: tuple[int, int] | None) -> None:
        self.pipe, self.checkpoint, self.size = pipe, checkpoint, size
        self.exact: dict[str, Any] = {name: each for name, each in pipe.unet.named_modules() if _may_go(name, each)}
        self.seen = {name: Seen() for name in self.exact}
        self.made: dict[str, EightBitConv2d | EightBitLinear] = {}
        self.biases: dict[str, Tensor] = {}
        self.tried: list[Call] = []
        self.chosen = set(self.exact)

    def calibrate(self, prompts: Sequence[str], progress: Progress) -> None:
        """Draw, looking at every layer's inputs; then others, keeping the U-Net's answers."""
        total = len(prompts) + len(OTHERS)
        hooks = [layer.register_forward_hook(self.seen[name].watch) for name, layer in self.exact.items()]
        for index, prompt in enumerate((*prompts, *OTHERS)):
            if index == len(prompts):
                for each in hooks:
                    each.remove()
                hooks = [self.pipe.unet.register_forward_hook(self._keep)]
            self._draw(prompt, index)
            progress(index + 1, total)
        hooks[0].remove()

    @torch.inference_mode()
    def fit(self, progress: Progress) -> None:
        """Every layer's numbers and scales, from the weights as the file has them."""
        stored = self.checkpoint.parts["unet"].tensors
        for index, (name, layer) in enumerate(self.exact.items()):
            bias = None if layer.bias is None else stored[f"{name}.bias"].read()
            rows, mixes = torch.cat(self.seen[name].rows), _mixes(name, layer)
            tensors = fitted(stored[f"{name}.weight"].read(), bias, rows, mixes=mixes)
            self.seen[name].rows.clear()
            self.made[name] = filled(layer, tensors, mixes=mixes)
            self.made[name].pack()
            if bias is not None:
                self.biases[name] = tensors["bias"]
            progress(index + 1, len(self.exact))

    def within(self, allowed: float) -> dict[float, float]:
        """The errors once their mean is allowed, for which layers that lose most for their work are exact again."""
        errors = self.errors(self.chosen)
        if mean(errors.values()) <= allowed:
            return errors
        groups: defaultdict[str, set[str]] = defaultdict(set)
        for name in self.exact:
            groups[group_of(name)].add(name)
        work = {group: sum(self.seen[name].work for name in names) for group, names in groups.items()}
        some = self.tried[:: max(1, len(self.tried) // 2)]
        lost = {group: mean(self.errors(names, some).values()) ** 2 for group, names in groups.items()}
        dear = sorted(groups, key=lambda group: lost[group] / work[group])
        while mean(errors.values()) > allowed and dear:
            self.chosen -= groups[dear.pop()]
            errors = self.errors(self.chosen)
        return errors

    @torch.inference_mode()
    def errors(self, names: set[str], calls: Sequence[Call] | None = None) -> dict[float, float]:
        """By timestep |8 bits - exact| / |exact| of the U-Net's answers, these layers in 8 bits; of all calls kept."""
        for name, exact in self.exact.items():
            self.pipe.unet.set_submodule(name, self.made[name] if name in names else exact)
        found: defaultdict[float, list[float]] = defaultdict(list)
        for call in self.tried if calls is None else calls:
            answer, exact = self.pipe.unet(*call.given).float(), call.answer.float()
            found[call.time].append(float((answer - exact).norm() / exact.norm()))
        return {time: mean(each) for time, each in found.items()}

    def result(self, errors: Mapping[float, float]) -> Optimised:
        """The checkpoint with the chosen layers in 8 bits."""
        part, names = self.checkpoint.parts["unet"], [name for name in self.exact if name in self.chosen]
        tensors = dict(part.tensors)
        for name in names:
            tensors |= {f"{name}.{key}": each for key, each in stored_layer(self.made[name]).items()}
            if name in self.biases:
                tensors[f"{name}.bias"] = Stored.of(self.biases[name])
        config = {**part.config, QUANTISATION: quantisation({name: self.made[name].mixes for name in names})}
        made = replace(part, config=config, tensors=tensors)
        held = sum(prod(shape_of(self.exact[name])) for name in names)
        return Optimised(
            replace(self.checkpoint, parts={**self.checkpoint.parts, "unet": made}),
            layers=len(names),
            candidates=len(self.exact),
            share=held / sum(prod(each.shape) for each in part.tensors.values()),
            errors=errors,
        )

    def _draw(self, prompt: str, seed: int) -> None:
        for _ in self.pipe.steps(prompt, seed=seed, steps=STEPS, size=self.size):
            pass

    def _keep(self, unet: nn.Module, given: tuple[Any, ...], answer: Tensor) -> None:
        self.tried.append(Call(given, answer))


def _may_go(name: str, module: nn.Module) -> bool:
    return TAKEN.search(name) is not None and isinstance(module, nn.Linear | nn.Conv2d)


def _mixes(name: str, layer: nn.Module) -> bool:
    """True for a feed-forward's last layer, whose inputs are products with long tails."""
    return name.endswith(".ff.net.2") and may_mix(layer)


def group_of(name: str) -> str:
    """Layers that are measured together: those of one kind in one block of the U-Net."""
    block, _, rest = re.sub(r"\.(resnets|attentions)\.", "|", name).partition("|")
    return f"{block} {rest.partition('.')[2]}"


def stored_layer(layer: EightBitConv2d | EightBitLinear) -> dict[str, Stored]:
    """An 8-bit layer's tensors but its bias, to be written."""
    scales = {key: Stored.of(getattr(layer, key)) for key in ("weight_scale", "input_scale", "input_zero")}
    shape = tuple(shape_of(layer))
    return {"weight": Stored(shape, torch.int8, lambda: whole(layer)), **scales}
