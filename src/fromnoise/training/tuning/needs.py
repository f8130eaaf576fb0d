"""What a run will need, said before it starts: what learns, memory, and time measured over a few steps."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.training.learner import Callback, Learner
from fromnoise.training.optimizers import adamw
from fromnoise.training.tuning.showing import Samples
from fromnoise.training.tuning.task import TuningTask
from fromnoise.training.tuning.watching import Watch

WARMUP = 5
"""Steps that are measured, the first of which is not counted."""

LONG = 60.0
"""Seconds after which fewer steps will do."""

GIB = 2**30
OPTIMISED = 16
"""Bytes a weight that learns takes: itself, its gradient and AdamW's two averages, in float32."""


@dataclass(frozen=True)
class Needs:
    """`learn` of `parameters` parameters learn; `memory` in bytes at the highest; `seconds` a step."""

    learn: int
    parameters: int
    memory: int
    seconds: float


class Forecast(Callback):
    """Tells what the run needs. It stands behind what it asks how long it took: pictures and checks are part of it."""

    def __init__(self, task: TuningTask, samples: Samples, watch: Watch) -> None:
        self.task, self.samples, self.watch = task, samples, watch

    def start(self, learner: Learner) -> None:
        """Measure, and say so."""
        needs, left = measure(learner, self.task), self.task.recipe.steps - learner.step_index
        if self.task.processes.main and left > 0:
            note(self.text(needs, left))

    def text(self, needs: Needs, left: int) -> str:
        """One line for a person; `left` steps are still to be made."""
        share = needs.learn / max(needs.parameters, 1)
        return (
            f"{needs.learn:,} parameters learn ({share:.2%} of {needs.parameters:,}); about {needs.memory / GIB:.1f} "
            f"GiB of memory; {needs.seconds:.2f} s a step, with checks and pictures about "
            f"{_minutes(self.seconds(needs, left))} for {left} steps at the most"
        )

    def seconds(self, needs: Needs, left: int) -> float:
        """How long so many steps take, their checks, and their pictures, which are drawn once more at the end."""
        recipe = self.task.recipe
        sheets = left // recipe.sample_every + 1 if recipe.sample_every else 0
        return left * needs.seconds + left // recipe.check_every * self.watch.seconds + sheets * self.samples.seconds


def require_memory(learn: int, device: torch.device) -> None:
    """UsageError when the weights that learn and their optimiser can't fit into free memory, with advice."""
    free = free_memory(device)
    if free is not None and learn * OPTIMISED > free:
        raise UsageError(
            f"{learn:,} parameters that learn need {learn * OPTIMISED / GIB:.1f} GiB and {free / GIB:.1f} are free; "
            "train a LoRA instead, which takes a hundredth of it, or use a larger machine"
        )


def learning(task: TuningTask) -> int:
    """How many parameters learn."""
    return sum(each.numel() for each in task.model.parameters() if each.requires_grad)


def measure(learner: Learner, task: TuningTask) -> Needs:
    """Time and memory of whole steps with a rate of zero and an optimiser of their own, which change no weight."""
    idle = adamw(task.model.parameters())
    for group in idle.param_groups:
        group["lr"] = 0.0
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < WARMUP and (task.processes.count > 1 or sum(seconds) < LONG)):
        before = time.monotonic()
        _one(learner, idle, len(seconds))
        seconds.append(time.monotonic() - before)
    learn = learning(task)
    averages = learn * 4 * (1 if task.recipe.average else 0)
    return Needs(learn, _all(task), _peak(task.pipeline.device) + averages, mean(seconds[1:]))


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    lines = (line.split() for line in table.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"), None)


def _one(learner: Learner, idle: torch.optim.Optimizer, step: int) -> None:
    batch = learner.task.batch(step)
    with learner.around_predict():
        loss = learner.loss(learner.predict(batch), batch)
    learner.backward(loss)
    idle.step()
    idle.zero_grad(set_to_none=True)


def _all(task: TuningTask) -> int:
    """All parameters, those of a module that is part of the model counted once."""
    modules: list[nn.Module] = [task.model, task.unet, *(each.clip_text for each in task.learns.prompts.encoders)]
    return sum({id(each): each.numel() for module in modules for each in module.parameters()}.values())


def _peak(device: torch.device) -> int:
    """The most memory that was in use, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
