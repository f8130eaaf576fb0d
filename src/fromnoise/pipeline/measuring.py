"""Measure this machine once: the blocks that networks are made of, at sizes from the embedded model's to SD 1.5's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fromnoise.engines.eager import pack, use_kernels
from fromnoise.models.autoencoder import SelfAttention
from fromnoise.models.work import Kind, Piece, pixel_attention, resnet, transformer
from fromnoise.nn.attention import SpatialTransformer
from fromnoise.nn.resnet import ResnetBlock
from fromnoise.runtime.log import note
from fromnoise.runtime.machine import MEMORY, Machine, Speed, busy_seconds, known_machine, machine_name

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

VERSION = 2
"""Goes up when what is measured runs otherwise than before, so that every machine is measured again."""

BEYOND_CACHES = 256_000_000
"""Bytes that no cache holds."""

ENOUGH = 0.1
"""A block is run until so many seconds are spent, after once for warming up."""


def machine(dtype: torch.dtype, packed: bool) -> Machine:
    """This machine for a number format and networks packed or not: as measured before, or now, in some seconds."""
    name = f"{machine_name(dtype)}, {'packed' if packed else 'plain'}, blocks {VERSION}"
    known = known_machine(name)
    if known is None:
        note("measuring this machine once, to tell how long work will take")
        known = Machine(name, (*(speed(block, Form(dtype, packed)) for block in BLOCKS), memory_speed()))
        known.save()
    return known


@dataclass(frozen=True)
class Form:
    """In what number format networks run, and whether the eager engine packs them."""

    dtype: torch.dtype
    packed: bool = False

    def block(self, module: nn.Module) -> nn.Module:
        """A block made ready to run so."""
        module = module.eval().requires_grad_(False).to(self.dtype)
        if self.packed:
            pack(module)
            use_kernels(module)
        return module

    def maps(self, count: int, side: int, width: int) -> Tensor:
        """Maps of noise."""
        layout = torch.channels_last if self.packed else torch.contiguous_format
        return torch.randn(count, width, side, side).to(self.dtype, memory_format=layout)


@torch.inference_mode()
def speed(block: Block, form: Form) -> Speed:
    """How fast a block runs."""
    run, piece = _MAKERS[block[0]](block, form)
    run()
    return Speed(piece.kind, piece.rows, piece.width, piece.flops / shortest(run))


def memory_speed() -> Speed:
    """Bytes a second that are read from memory, past all caches."""
    values = torch.ones(BEYOND_CACHES // 4)
    return Speed(MEMORY, 1, 1, BEYOND_CACHES / shortest(values.sum))


def shortest(run: Callable[[], object]) -> float:
    """The least seconds that a call takes: what disturbs it only makes it longer."""
    taken: list[float] = []
    while sum(taken) < ENOUGH:
        started = busy_seconds()
        run()
        taken.append(max(busy_seconds() - started, 1e-7))
    return min(taken)


Made = tuple[Callable[[], Tensor], Piece]


def _resnet(block: Block, form: Form) -> Made:
    _, count, side, width = block
    module, x = form.block(ResnetBlock(width, width, GROUPS, 1e-5)), form.maps(count, side, width)
    return lambda: module(x), resnet(count * side**2, width, width, 0, count)


def _transformer(block: Block, form: Form) -> Made:
    kind, count, side, width = block
    heads = width // HEADS[kind]
    module, x = form.block(SpatialTransformer(width, heads, CONTEXT, GROUPS)), form.maps(count, side, width)
    words = torch.randn(count, WORDS, CONTEXT).to(form.dtype)
    return lambda: module(x, words), transformer(count, side**2, width, WORDS, CONTEXT, heads)


def _attention(block: Block, form: Form) -> Made:
    _, count, side, width = block
    module, x = form.block(SelfAttention(width, GROUPS)), form.maps(count, side, width)
    return lambda: module(x), pixel_attention(count, side**2, width)


_MAKERS: dict[Kind, Callable[[Block, Form], Made]] = {
    "convolution": _resnet,
    "transformer": _transformer,
    "narrow transformer": _transformer,
    "attention": _attention,
}
