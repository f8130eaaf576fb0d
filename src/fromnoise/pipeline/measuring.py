"""Measure this machine once: the blocks that networks are made of, at sizes from the embedded model's to SD 1.5's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from math import ceil

import torch
from torch import Tensor, nn

from fromnoise.engines.eager import LARGE, gains, pack, size, use_kernels
from fromnoise.models.autoencoder import SelfAttention
from fromnoise.models.work import Kind, Piece, pixel_attention, resnet, transformer
from fromnoise.nn.attention import SpatialTransformer
from fromnoise.nn.resnet import ResnetBlock
from fromnoise.runtime.log import note
from fromnoise.runtime.machine import Machine, Speed, busy_seconds, known_machine, machine_name

WORDS, CONTEXT = 77, 768
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

VERSION = 3
"""Goes up when what is measured runs otherwise than before, so that every machine is measured again."""

BEYOND_CACHES = 64_000_000
"""Bytes of weights that no core's own caches hold."""

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
        packed = gains(unet)
        return cls(dtype, packed, packed and size(unet) >= LARGE)

    @property
    def name(self) -> str:
        """What a machine's speeds are kept under."""
        layout = ("packed, kernels" if self.kernels else "packed") if self.packed else "plain"
        return f"{machine_name(self.dtype)}, {layout}, blocks {VERSION}"

    def copies(self, make: Callable[[], nn.Module]) -> list[nn.Module]:
        """Copies of a block that caches can't hold all of: a network's weights are fetched anew each time, too."""
        first = self._block(make())
        size = self.dtype.itemsize * sum(each.numel() for each in first.parameters())
        return [first, *(self._block(make()) for _ in range(ceil(BEYOND_CACHES / size) - 1))]

    def _block(self, module: nn.Module) -> nn.Module:
        module = module.eval().requires_grad_(False).to(self.dtype)
        if self.packed:
            pack(module)
        if self.kernels:
            use_kernels(module)
        return module

    def maps(self, count: int, side: int, width: int) -> Tensor:
        """Maps of noise."""
        layout = torch.channels_last if self.packed else torch.contiguous_format
        return torch.randn(count, width, side, side).to(self.dtype, memory_format=layout)


def machine(form: Form) -> Machine:
    """This machine for networks of a form: as measured before, or now, in some seconds."""
    known = known_machine(form.name)
    if known is None:
        note("measuring this machine once, to tell how long work will take")
        known = Machine(form.name, tuple(speed(block, form) for block in BLOCKS))
        known.save()
    return known


@torch.inference_mode()
def speed(block: Block, form: Form) -> Speed:
    """How fast a block runs."""
    modules, given, piece = _MAKERS[block[0]](block, form)
    for each in modules:
        each(*given)
    return Speed(piece.kind, piece.rows, piece.width, piece.flops / _seconds(modules, given))


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
    modules = form.copies(lambda: ResnetBlock(width, width, GROUPS, 1e-5))
    return modules, (form.maps(count, side, width),), resnet(count * side**2, width, width, 0, count)


def _transformer(block: Block, form: Form) -> Made:
    kind, count, side, width = block
    heads = width // HEADS[kind]
    modules = form.copies(lambda: SpatialTransformer(width, heads, CONTEXT, GROUPS))
    given = form.maps(count, side, width), torch.randn(count, WORDS, CONTEXT).to(form.dtype)
    return modules, given, transformer(count, side**2, width, WORDS, CONTEXT, heads)


def _attention(block: Block, form: Form) -> Made:
    _, count, side, width = block
    modules = form.copies(lambda: SelfAttention(width, GROUPS))
    return modules, (form.maps(count, side, width),), pixel_attention(count, side**2, width)


_MAKERS: dict[Kind, Callable[[Block, Form], Made]] = {
    "convolution": _resnet,
    "transformer": _transformer,
    "narrow transformer": _transformer,
    "attention": _attention,
}
