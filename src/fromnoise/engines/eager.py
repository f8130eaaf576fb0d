"""The eager engine's own speed: torch as it stands, with weights and maps laid out as oneDNN computes fastest."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from fromnoise.nn import tiles
from fromnoise.nn.attention import Attention
from fromnoise.nn.convolution import Conv2d
from fromnoise.runtime.device import LARGE, channels_last
from fromnoise.runtime.memory import give_back


def lay_out(network: nn.Module, autoencoder: nn.Module) -> None:
    """Pack a large network's convolutions, let its attention use a compiled kernel where there is one, and give the
    autoencoder's weights channels last, on a CPU, once.

    Weights that learn stay as they are, and small networks, which nobody waits for, too. A packed convolution lets go
    of its ordinary weights, so memory never holds all of both.
    """
    if not torch.backends.mkldnn.is_available() or _is_laid_out(network) or not _gains(network):
        return
    for each in _convolutions(network):
        each.pack()
        give_back()
    _tile(network, next(network.parameters()).dtype == torch.bfloat16 and tiles.available())
    channels_last(autoencoder)


def _gains(network: nn.Module) -> bool:
    """True for a large network on a CPU that does not learn."""
    weights = list(network.parameters())
    large = sum(each.numel() for each in weights) >= LARGE
    return large and weights[0].device.type == "cpu" and not any(each.requires_grad for each in weights)


def unpack(network: nn.Module) -> None:
    """Give a network its ordinary weights back: other engines and trainers read them."""
    for each in _convolutions(network):
        each.unpack()
    _tile(network, False)


def _tile(network: nn.Module, tiled: bool) -> None:
    for each in network.modules():
        if isinstance(each, Attention):
            each.tiled = tiled


def _is_laid_out(network: nn.Module) -> bool:
    return any(each.weight.is_mkldnn for each in _convolutions(network))


def _convolutions(network: nn.Module) -> Iterator[Conv2d]:
    return (each for each in network.modules() if isinstance(each, Conv2d))
