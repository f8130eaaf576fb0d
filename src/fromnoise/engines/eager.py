"""The eager engine's own speed: torch as it stands, with weights and maps laid out as oneDNN computes fastest."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakSet

import torch
from torch import nn

from fromnoise.nn import activation, tiles
from fromnoise.nn.attention import Attention
from fromnoise.nn.convolution import Conv2d
from fromnoise.nn.eight_bit import EightBit, eight_bit_layers, supported
from fromnoise.nn.norm import GroupNorm
from fromnoise.runtime.device import SMALL
from fromnoise.runtime.memory import give_back

LARGE = 200_000_000
"""Parameters from which a network gains by kernels compiled where it runs.

By the layout it gains from `SMALL` on: the embedded one takes three quarters of the time then.
"""

_LEFT: WeakSet[nn.Module] = WeakSet()


def lay_out(network: nn.Module, parameters: int) -> None:
    """Lay out a part of a model whose U-Net has so many parameters for a CPU, once: 8-bit layers, and convolutions.

    Weights that learn stay as they are, and networks smaller than `SMALL` too, which gain nothing.
    """
    if _is_empty(network):
        return
    if supported():
        pack_numbers(network)
    if not _is_laid_out(network) and gains(network, parameters):
        prepare(network, parameters)


def pack_numbers(network: nn.Module) -> None:
    """Pack 8-bit layers, which compute in int8 from then on; nothing happens to those that are packed."""
    for each in eight_bit_layers(network):
        if each.steps is None:
            each.pack()
            give_back()


def prepare(part: nn.Module, parameters: int) -> None:
    """Lay out a part of a model whose U-Net has so many parameters, as far as that pays."""
    if pays(parameters):
        pack(part)
        give_back()
    if parameters >= LARGE:
        use_kernels(part)


def pack(network: nn.Module) -> None:
    """Pack convolutions that aren't; each lets go of its ordinary weight."""
    for each in _convolutions(network):
        each.pack()


def use_kernels(network: nn.Module) -> None:
    """Let attention and norms use compiled kernels, in bfloat16 and where they can be compiled."""
    half = next(network.parameters()).dtype == torch.bfloat16
    _set_kernels(network, attention=half and tiles.available(), norms=half and activation.available())


def gains(network: nn.Module, parameters: int) -> bool:
    """True for what `lay_out` lays out: a part of a model on a CPU which does not learn and has not been left alone."""
    if network in _LEFT:
        return False
    weights = list(network.parameters())
    on_cpu = weights[0].device.type in ("cpu", "meta")
    return on_cpu and pays(parameters) and not any(each.requires_grad for each in weights)


def pays(parameters: int) -> bool:
    """True for a network that is faster packed, by its size, if torch has oneDNN here."""
    return parameters >= SMALL and torch.backends.mkldnn.is_available()


def unpack(network: nn.Module) -> None:
    """Give a network its ordinary weights back: other engines and trainers read them."""
    for each in (*_convolutions(network), *eight_bit_layers(network)):
        each.unpack()
    _set_kernels(network, attention=False, norms=False)


def leave(network: nn.Module) -> None:
    """Give a network its ordinary weights back for good: a trainer needs them, and draws between its steps."""
    unpack(network)
    _LEFT.add(network)


def size(network: nn.Module) -> int:
    """How many parameters a network has."""
    return sum(each.numel() for each in network.parameters())


def _set_kernels(network: nn.Module, *, attention: bool, norms: bool) -> None:
    for each in network.modules():
        if isinstance(each, Attention):
            each.tiled = attention
        elif isinstance(each, GroupNorm):
            each.fused = norms


def _is_empty(network: nn.Module) -> bool:
    return next(network.parameters()).is_meta


def _is_laid_out(network: nn.Module) -> bool:
    return any(each.weight.is_mkldnn for each in _convolutions(network))


def _convolutions(network: nn.Module) -> Iterator[Conv2d]:
    return (each for each in network.modules() if isinstance(each, Conv2d) and not isinstance(each, EightBit))
