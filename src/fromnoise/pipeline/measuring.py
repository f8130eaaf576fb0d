"""Measure this machine once: the blocks that networks are made of, at sizes from the embedded model's to SD 1.5's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from math import ceil
from statistics import fmean

import torch
from torch import Tensor, nn

from fromnoise.adapters.factors import Lora
from fromnoise.adapters.matching import Place
from fromnoise.adapters.patches import Fused
from fromnoise.diffusion.guidance import Plan
from fromnoise.diffusion.samplers import SAMPLERS
from fromnoise.diffusion.schedules import NoiseSchedule
from fromnoise.engines.eager import LARGE, gains, pack, size, use_kernels
from fromnoise.models.autoencoder import SelfAttention
from fromnoise.models.work import Kind, Piece, pixel_attention, resnet, transformer
from fromnoise.nn.attention import SpatialTransformer
from fromnoise.nn.convolution import Conv2d
from fromnoise.nn.resnet import ResnetBlock
from fromnoise.pipeline.network import Network, Said
from fromnoise.runtime.log import note
from fromnoise.runtime.machine import READY, Machine, Speed, busy_seconds, known_machine, machine_name
from fromnoise.runtime.seeds import PictureNoise
from fromnoise.text import Conditioning

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

JOINING = "joining"
"""The kind of a speed in numbers a second that an adapter adds to a weight."""

JOINED, RANK = 640, 8
"""Channels of the convolution that is joined to an adapter, and the adapter's rank."""

STEP = "step"
"""The start of a guided step: what it takes beside its network's blocks."""

LEVELS = 20
"""Noise levels that a step is measured over."""

VERSION = 6
"""Goes up when what is measured runs otherwise than before, so that every machine is measured again."""

BEYOND_CACHES = 64_000_000
"""Bytes of weights that no core's own caches hold."""

OTHER = 4_000_000
"""Numbers that fill a core's own caches."""

MANY = 100
"""Copies of the smallest blocks."""

SHAPES = 8
"""Numbers of maps that a block is given for the first time."""

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
        held = self.dtype.itemsize * (size(module) + x.numel())
        count = min(max(ceil(BEYOND_CACHES / held), 2), MANY)
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
            form.name,
            (*(each for block in BLOCKS for each in speeds(block, form, starts[block[0]])), joining(form)),
            {**starts, STEP: step(form)},
            {kind: anew(kind, form) for kind in _MAKERS},
        )
        known.save()
    return known


@torch.inference_mode()
def step(form: Form) -> float:
    """Seconds of a step of DPM++ 2M beside the network's call, which leaves nothing of it in the caches."""
    schedule, other = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012), _other()
    sigmas = torch.cat([schedule.sigmas.flip(0)[:: len(schedule) // LEVELS], torch.zeros(1)])
    words = Conditioning(torch.randn(1, WORDS, CONTEXT).to(form.dtype))

    def network(x: Tensor, *_: object) -> Tensor:
        other()
        return x

    called = Network(network, schedule, "v_prediction", sigmas, lambda _: Said((words,), words), 1)
    guided, noise = Plan(4.0).start(called, "v_prediction"), PictureNoise([0], (4, 16, 16))

    def draw() -> None:
        for each in SAMPLERS["dpmpp-2m"](guided, noise(), sigmas, noise=noise):
            torch.isfinite(each.x).all()

    draw()
    return max(_mean([draw]) / LEVELS - _mean([other]), TICK)


@torch.inference_mode()
def start(kind: Kind, form: Form) -> float:
    """Seconds that a block takes with next to nothing to do."""
    modules, given, _ = _smallest(kind, form)
    for each in modules:
        _first(each, given, form)
    return _seconds(modules, given)


@torch.inference_mode()
def anew(kind: Kind, form: Form) -> float:
    """Seconds that a block takes longer when so many maps are new to oneDNN, which then makes its kernels."""
    (module, *_), given, _ = _smallest(kind, form)
    _first(module, given, form)
    shapes = [tuple(torch.cat([each] * count) for each in given) for count in range(2, 2 + SHAPES)]
    first = _turn(module, shapes)
    return max(first - min(_turn(module, shapes) for _ in range(SHAPES)), 0.0) / SHAPES


@torch.inference_mode()
def speeds(block: Block, form: Form, begun: float = 0.0) -> list[Speed]:
    """How fast a block runs, `begun` seconds after its call, and how fast its weights are made ready the first time.

    That is what copies after the first show, for which oneDNN has its kernels.
    """
    modules, given, piece = _MAKERS[block[0]](block, form)
    _, *firsts = [_first(each, given, form) for each in modules]
    first = fmean(firsts)
    usual = _seconds(modules, given)
    ready = piece.weights / (TICK if form.kernels else max(first - usual, TICK))  # a large network's while it is loaded
    rate = piece.flops / max(usual - begun, usual / 4)
    return [Speed(kind, piece.rows, piece.width, speed) for kind, speed in ((piece.kind, rate), (READY, ready))]


@torch.inference_mode()
def joining(form: Form) -> Speed:
    """How fast adapters are added to weights."""
    layer = Conv2d(JOINED, JOINED, 3).requires_grad_(False).to(form.dtype)
    form.lay_out(layer)
    factors = Lora(torch.randn(JOINED, RANK), torch.randn(RANK, JOINED, 3, 3))

    def join() -> None:
        patch = Fused(layer, [(1.0, Place(layer, factors))])
        patch.on()
        patch.off()

    return Speed(JOINING, 1, JOINED, 9 * JOINED**2 / _mean([join]))


def _first(module: nn.Module, given: tuple[Tensor, ...], form: Form) -> float:
    """Seconds of laying out a module and calling it for the first time."""
    started = busy_seconds()
    form.lay_out(module)
    module(*given)
    return busy_seconds() - started


def _turn(module: nn.Module, shapes: Sequence[tuple[Tensor, ...]]) -> float:
    """Seconds of a call on maps of each of the shapes."""
    started = busy_seconds()
    for given in shapes:
        module(*given)
    return busy_seconds() - started


def _seconds(calls: Sequence[Callable[..., object]], given: tuple[Tensor, ...]) -> float:
    """Seconds of a call, the calls in turns, each of which finds the caches full of something else, as in a network."""
    between = _other()
    both = _mean([step for call in calls for step in (between, partial(call, *given))])
    return max(2 * both - _mean([between]), TICK)


def _other() -> Callable[[], object]:
    """Something that leaves nothing else in a core's caches."""
    return partial(torch.zeros(OTHER).add_, 1)


def _mean(calls: Sequence[Callable[[], object]]) -> float:
    """Seconds of a call, in turns: their mean, because the clock's ticks may be longer than a call."""
    turns, count, started = cycle(calls), 0, busy_seconds()
    while (spent := busy_seconds() - started) < ENOUGH or count < len(calls):
        next(turns)()
        count += 1
    return spent / count


def _smallest(kind: Kind, form: Form) -> Made:
    """Copies of a block of a kind that have next to nothing to do."""
    return _MAKERS[kind]((kind, 2, 2, HEADS.get(kind, 64)), form)


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
