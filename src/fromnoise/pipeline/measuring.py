"""Measure this machine once: the blocks that networks are made of, at sizes from the embedded model's to SD 1.5's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from statistics import fmean

import torch
from torch import Tensor, nn

from fromnoise.engines.eager import LARGE, gains, pack, size, use_kernels
from fromnoise.models.autoencoder import SelfAttention
from fromnoise.models.work import Kind, Piece, pixel_attention, resnet, transformer
from fromnoise.nn.attention import SpatialTransformer
from fromnoise.nn.resnet import ResnetBlock
from fromnoise.runtime.log import note
from fromnoise.runtime.machine import READY, Machine, Speed, busy_seconds, known_machine, machine_name

WORDS, CONTEXT = 77, 768
TIME = 512
"""Channels of the embedded time."""

GROUPS = 8
HEADS = {"transformer": 64, "narrow transformer": 40}
"""Channels of a head."""

Block = tuple[Kind, int, int, int]
"""Kind of a block, how many maps, their side and channels."""

BLOCKS: tuple[Block, ...] = (
    ("convolution", 2, 8, 320),
    ("convolution", 2, 8, 1280),
    ("convolution", 2, 16, 128),
    ("convolution", 2, 16, 1280),
    ("convolution", 2, 32, 640),
    ("convolution", 1, 64, 24),
    ("convolution", 2, 64, 320),
    ("convolution", 1, 64, 512),
    ("convolution", 1, 256, 256),
    ("convolution", 1, 512, 128),
    ("transformer", 2, 8, 320),
    ("transformer", 2, 8, 1280),
    ("transformer", 2, 16, 1280),
    ("transformer", 2, 32, 640),
    ("narrow transformer", 2, 8, 320),
    ("narrow transformer", 2, 64, 320),
    ("attention", 1, 16, 128),
    ("attention", 1, 64, 512),
)
"""What is measured; the U-Net's blocks on the two pictures of a guided call."""

VERSION = 4
"""Goes up when what is measured runs otherwise than before, so that every machine is measured again."""

BEYOND_CACHES = 64_000_000
"""Bytes of weights that no core's own caches hold."""

MANY = 100
"""Copies of the smallest blocks."""

TICK = 1e-4
"""The least seconds that are told from none."""

ENOUGH = 0.1
"""A block is run until so many seconds are spent, and in every copy, after once for warming up."""


@dataclass(frozen=True)
class Form:
    """In what number format networks run, and whether the eager engine packs them and has kernels for them."""

    dtype: torch.dtype
    packed: bool = False
    kernels: bool = False

    @classmethod
    def of(cls, unet: nn.Module, dtype: torch.dtype) -> Form:
        """That of a model's networks."""
        packed = gains(unet, size(unet))
        return cls(dtype, packed, packed and size(unet) >= LARGE)

    @property
    def name(self) -> str:
        """What a machine's speeds are kept under."""
        layout = ("packed, kernels" if self.kernels else "packed") if self.packed else "plain"
        return f"{machine_name(self.dtype)}, {layout}, blocks {VERSION}"

    def copies(self, make: Callable[[], nn.Module], x: Tensor) -> list[nn.Module]:
        """Copies of a block that caches can't hold all of: a network's weights are fetched anew each time, too.

        `x` are the maps that it is given, which push weights out of caches as well.
        """
        with torch.device("meta"):
            module = make().eval().requires_grad_(False).to(self.dtype)
        count = min(ceil(BEYOND_CACHES / (self.dtype.itemsize * (size(module) + x.numel()))), MANY)
        made = [copy.deepcopy(module).to_empty(device="cpu") for _ in range(count)]
        for weight in (weight for each in made for weight in each.parameters()):
            weight.zero_()  # as fast as any other value, but for those too small to be normal ones
        return made

    def lay_out(self, module: nn.Module) -> None:
        """As the eager engine does before the first drawing."""
        if self.packed:
            pack(module)
        if self.kernels:
            use_kernels(module)

    def maps(self, count: int, side: int, width: int) -> Tensor:
        """Maps of noise."""
        layout = torch.channels_last if self.packed else torch.contiguous_format
        return torch.randn(count, width, side, side).to(self.dtype, memory_format=layout)


def machine(form: Form) -> Machine:
    """This machine for networks of a form: as measured before, or now, in some seconds."""
    known = known_machine(form.name)
    if known is None:
        note("measuring this machine once, to tell how long work will take")
        starts = {kind: start(kind, form) for kind in _MAKERS}
        known = Machine(
            form.name, tuple(each for block in BLOCKS for each in speeds(block, form, starts[block[0]])), starts
        )
        known.save()
    return known


@torch.inference_mode()
def start(kind: Kind, form: Form) -> float:
    """Seconds that a block takes with next to nothing to do."""
    modules, given, _ = _MAKERS[kind]((kind, 2, 2, HEADS.get(kind, 64)), form)
    for each in modules:
        _first(each, given, form)
    return _seconds(modules, given)


@torch.inference_mode()
def speeds(block: Block, form: Form, begun: float = 0.0) -> list[Speed]:
    """How fast a block runs, `begun` seconds after its call, and how fast its weights are made ready the first time.

    A network has about two blocks of each shape, of which the first alone has oneDNN make its kernels.
    """
    modules, given, piece = _MAKERS[block[0]](block, form)
    first = fmean([_first(each, given, form) for each in modules][:2])
    usual = _seconds(modules, given)
    ready = piece.weights / max(first - usual, TICK)
    rate = piece.flops / max(usual - begun, usual / 4)
    return [Speed(kind, piece.rows, piece.width, speed) for kind, speed in ((piece.kind, rate), (READY, ready))]


def _first(module: nn.Module, given: tuple[Tensor, ...], form: Form) -> float:
    """Seconds of calling a module for the first time, laying it out included unless that is a part of loading it."""
    if form.kernels:
        form.lay_out(module)
    started = busy_seconds()
    form.lay_out(module)
    module(*given)
    return busy_seconds() - started


def _seconds(modules: list[nn.Module], given: tuple[Tensor, ...]) -> float:
    """Seconds of a call, the modules in turns: their mean, because the clock's ticks may be longer than a call."""
    turns, calls, started = cycle(modules), 0, busy_seconds()
    while (spent := busy_seconds() - started) < ENOUGH or calls < len(modules):
        next(turns)(*given)
        calls += 1
    return spent / calls


Made = tuple[list[nn.Module], tuple[Tensor, ...], Piece]
"""Copies of a block, what they are given, and its work."""


def _resnet(block: Block, form: Form) -> Made:
    _, count, side, width = block
    x = form.maps(count, side, width)
    time = torch.randn(count, TIME).to(form.dtype)
    modules = form.copies(lambda: ResnetBlock(width, width, GROUPS, 1e-5, TIME), x)
    return modules, (x, time), resnet(count * side**2, width, width, TIME, count)


def _transformer(block: Block, form: Form) -> Made:
    kind, count, side, width = block
    heads = width // HEADS[kind]
    x, words = form.maps(count, side, width), torch.randn(count, WORDS, CONTEXT).to(form.dtype)
    modules = form.copies(lambda: SpatialTransformer(width, heads, CONTEXT, GROUPS), x)
    return modules, (x, words), transformer(count, side**2, width, WORDS, CONTEXT, heads)


def _attention(block: Block, form: Form) -> Made:
    _, count, side, width = block
    x = form.maps(count, side, width)
    modules = form.copies(lambda: SelfAttention(width, GROUPS), x)
    return modules, (x,), pixel_attention(count, side**2, width)


_MAKERS: dict[Kind, Callable[[Block, Form], Made]] = {
    "convolution": _resnet,
    "transformer": _transformer,
    "narrow transformer": _transformer,
    "attention": _attention,
}
