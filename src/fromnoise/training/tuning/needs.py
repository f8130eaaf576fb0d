"""What a run will need, said before it starts: what learns, memory, and time measured over a few steps."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, replace
from statistics import mean

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.memory import free_bytes
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
OPTIMISED = 12
"""Bytes a weight that learns takes beside itself: its gradient and AdamW's two averages, in float32."""


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
        if left > 0:
            self.watch.say(self.text(needs, left))

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


class Room(Callback):
    """Refuses a run that will not fit into memory, before anything is measured or drawn."""

    def __init__(self, task: TuningTask) -> None:
        self.task = task

    def start(self, learner: Learner) -> None:
        """Look what there is; UsageError with advice where it isn't enough. A run that goes on did fit."""
        if learner.step_index:
            return
        task, free = self.task, free_memory(self.task.pipeline.device)
        learn = learning(task) * OPTIMISED
        if learn > free:
            raise UsageError(
                f"{learning(task):,} parameters that learn need {learn / GIB:.1f} GiB and {free / GIB:.1f} are free; "
                "let fewer learn (a LoRA, a smaller rank), or use a larger machine"
            )
        needed = learn + kept_by_a_step(learner, task)
        if needed > free:
            smaller = "use a smaller --batch" if task.recipe.batch > 1 else "use a larger machine"
            saving = "" if task.recipe.checkpointing else " or --checkpointing"
            raise UsageError(
                f"a step with a batch of {task.recipe.batch} needs {needed / GIB:.1f} GiB at least and "
                f"{free / GIB:.1f} are free; {smaller}{saving}"
            )


def kept_by_a_step(learner: Learner, task: TuningTask) -> int:
    """Bytes that a step keeps for the gradient, reckoned from one picture and, of a larger batch, from two."""
    one, others = _kept(learner, task, 1), task.recipe.batch - 1
    return one + others * max(_kept(learner, task, 2) - one, 0) if others else one


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


def free_memory(device: torch.device) -> float:
    """Bytes that can still be had; infinite where the system does not tell."""
    if device.type != "cuda":
        return free_bytes()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _kept(learner: Learner, task: TuningTask, count: int) -> int:
    """Bytes that a step of so many pictures keeps from its forward pass, beside the weights."""
    recipe, kept = task.recipe, dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        if not tensor.is_mkldnn and not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    task.recipe = replace(recipe, batch=count)
    try:
        batch = task.batch(0)
    finally:
        task.recipe = recipe
    with saved_tensors_hooks(keep, lambda tensor: tensor), learner.around_predict():
        loss = learner.loss(learner.predict(batch), batch)
    del loss
    return sum(kept.values())


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
