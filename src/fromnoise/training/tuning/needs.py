"""What a run will need, said before it starts: what learns, memory, and time measured over a few steps."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fromnoise.runtime.errors import UsageError
from fromnoise.training.tuning.task import TuningTask

WARMUP = 3
"""Steps that are measured, the first of which is not counted."""

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

    def text(self, steps: int) -> str:
        """One line for a person; `steps` are those still to be made."""
        share = self.learn / max(self.parameters, 1)
        return (
            f"{self.learn:,} parameters learn ({share:.2%} of {self.parameters:,}); about {self.memory / GIB:.1f} GiB "
            f"of memory; {self.seconds:.2f} s a step, {_minutes(self.seconds * steps)} for {steps} steps at the most"
        )


def require_memory(learn: int, device: torch.device) -> None:
    """UsageError when the weights that learn and their optimiser can't fit into free memory, with advice."""
    free = free_memory(device)
    if free is not None and learn * OPTIMISED > free:
        raise UsageError(
            f"{learn:,} parameters that learn need {learn * OPTIMISED / GIB:.1f} GiB and {free / GIB:.1f} are free; "
            "train a LoRA instead, which takes a hundredth of it, or use a larger machine"
        )


def measure(task: TuningTask) -> Needs:
    """Time and memory of the first steps' forward and backward passes, which change no weight."""
    seconds = []
    for step in range(WARMUP):
        before = time.monotonic()
        _one(task, step)
        seconds.append(time.monotonic() - before)
    learn = sum(each.numel() for each in task.model.parameters() if each.requires_grad)
    device = task.pipeline.device
    averages = learn * 4 * (1 if task.recipe.average else 0)
    return Needs(learn, _all(task), _peak(device) + learn * 8 + averages, sum(seconds[1:]) / (WARMUP - 1))


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    lines = (line.split() for line in table.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"), None)


def _one(task: TuningTask, step: int) -> None:
    batch = task.batch(step)
    with torch.autocast(task.pipeline.device.type, torch.bfloat16):
        loss = task.loss(task.predict(batch), batch)
    loss.backward()
    for each in task.model.parameters():
        each.grad = None


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
