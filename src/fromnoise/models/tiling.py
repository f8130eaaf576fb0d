"""Large pictures through an autoencoder in pieces: overlapping tiles blended together, or one picture at a time.

Two things in an autoencoder see a whole map. The middle block's attention works on latents, so it and what else is
that coarse runs on the whole picture. Group norms are on every level: every tile is measured first, and then all are
normalised by the mean of what was measured, so that none has a tone of its own. What is left at the edges of tiles
is the convolutions' reach, which fades out over the overlap.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fromnoise.models.autoencoder import Autoencoder, Decoder, Encoder
from fromnoise.nn.circular import wrap

TILE, OVERLAP = 64, 16
"""Sides of a tile and of what neighbours share, in latents: 512 and 128 pixels for the published autoencoders."""


def decode_tiled(autoencoder: Autoencoder, latents: Tensor, tile: int = TILE, overlap: int = OVERLAP) -> Tensor:
    """What `autoencoder.decode` gives, nearly: pictures (B, 3, H, W), in the memory that a tile needs."""
    if max(latents.shape[-2:]) <= tile:
        return autoencoder.decode(latents)
    coarse = autoencoder.decoder.coarse(autoencoder.post_quant_conv(latents / autoencoder.config.scaling_factor))
    grow = autoencoder.config.factor
    return _blended(_shared(autoencoder.decoder, coarse, tile), coarse, tile, overlap, grow=grow)


def decode_circular(autoencoder: Autoencoder, latents: Tensor, axes: str) -> Tensor:
    """What `decode_tiled` gives, nearly, for a texture whose opposite edges meet along `axes` ("x", "y" or "xy").

    It decodes a little of the opposite edges too, and cuts it off.
    """
    wide, high = OVERLAP * ("x" in axes), OVERLAP * ("y" in axes)
    high, wide = (min(each, side) for each, side in zip((high, wide), latents.shape[-2:], strict=True))
    pictures = decode_tiled(autoencoder, wrap(latents, wide, high))
    rows, columns = (each * autoencoder.config.factor for each in (high, wide))
    return pictures[..., rows : pictures.shape[-2] - rows, columns : pictures.shape[-1] - columns]


def encode_tiled(
    autoencoder: Autoencoder, pictures: Tensor, noise: Tensor | None = None, tile: int = TILE, overlap: int = OVERLAP
) -> Tensor:
    """What `autoencoder.encode` gives, nearly, in the memory that a tile needs; sides are multiples of its factor."""
    shrink = autoencoder.config.factor
    if max(pictures.shape[-2:]) <= tile * shrink:
        return autoencoder.encode(pictures, noise)
    fine = _shared(autoencoder.encoder, pictures, tile * shrink)
    latents = autoencoder.gaussian(_blended(fine, pictures, tile, overlap, shrink=shrink))
    return (latents.mean if noise is None else latents.sample(noise)) * autoencoder.config.scaling_factor


def decode_sliced(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """What `autoencoder.decode` gives, in the memory that one picture needs."""
    return torch.cat([autoencoder.decode(each) for each in latents.split(1)])


class _SharedNorm(nn.Module):
    """A group norm that measures tile after tile, and once settled normalises by the statistics of them all."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.measured: list[Tensor] = []
        self.affine: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        if self.affine is not None:
            scale, shift = self.affine
            return torch.addcmul(shift, x, scale)
        variance, mean = torch.var_mean(x.float().unflatten(1, (self.norm.num_groups, -1)), (2, 3, 4), correction=0)
        self.measured.append(torch.stack([mean, variance + mean**2]))  # (2, B, groups)
        return self.norm(x)

    def settle(self) -> None:
        """Fix the statistics at the mean over what was measured."""
        mean, square = torch.stack(self.measured).mean(0)
        rstd = ((square - mean**2).clamp(min=0.0) + self.norm.eps).rsqrt()
        each, weight, bias = self.norm.num_channels // self.norm.num_groups, self.norm.weight, self.norm.bias
        scale = rstd.repeat_interleave(each, 1) * weight.float()
        shift = bias.float() - mean.repeat_interleave(each, 1) * scale
        self.affine = scale[:, :, None, None].to(weight.dtype), shift[:, :, None, None].to(weight.dtype)


def _shared(part: Encoder | Decoder, x: Tensor, tile: int) -> Callable[[Tensor], Tensor]:
    """`part.fine` with group norms that share the statistics of all tiles of x, `tile` wide there.

    It works on a copy that has the same weights, so that other threads can go on using the original.
    """
    part = copy.deepcopy(part, {id(parameter): parameter for parameter in part.parameters()})
    norms = _share_norms(part)
    rows, columns = (math.ceil(side / tile) for side in x.shape[-2:])
    for row in x.tensor_split(rows, 2):
        for part_of_x in row.tensor_split(columns, 3):
            part.fine(part_of_x)
    for norm in norms:
        if norm.measured:  # those of the coarse half are not run in tiles
            norm.settle()
    return part.fine


def _share_norms(part: nn.Module) -> list[_SharedNorm]:
    made: list[_SharedNorm] = []
    for module in list(part.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                made.append(_SharedNorm(child))
                setattr(module, name, made[-1])
    return made


def _blended(
    run: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, shrink: int = 1, grow: int = 1
) -> Tensor:
    """`run` over tiles of x; a latent is `shrink` wide in x and `grow` in what comes out."""
    height, width = (side // shrink for side in x.shape[-2:])

    def run_at(rows: slice, columns: slice) -> Tensor:
        return run(x[..., _scaled(rows, shrink), _scaled(columns, shrink)])

    return over_tiles(run_at, (height, width), tile, overlap, grow).to(x.dtype)


def over_tiles(
    run: Callable[[slice, slice], Tensor], size: tuple[int, int], tile: int, overlap: int, grow: int = 1
) -> Tensor:
    """What `run(rows, columns)` gives for overlapping tiles of (height, width), blended where they overlap.

    Each answer (B, C, h, w) is `grow` times as large as its tile; the whole is float32.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"tiles of {tile} latents can't overlap by {overlap}")
    height, width = size
    total = weights = torch.empty(0)
    for rows, row_fade in _spans(height, tile, overlap, grow):
        for columns, column_fade in _spans(width, tile, overlap, grow):
            part = run(rows, columns)
            if not len(total):
                total = part.new_zeros(*part.shape[:2], height * grow, width * grow, dtype=torch.float32)
                weights = torch.zeros(height * grow, width * grow, device=part.device)
            place = _scaled(rows, grow), _scaled(columns, grow)
            fade = (row_fade[:, None] * column_fade).to(part.device)
            total[..., *place] += part * fade
            weights[place] += fade
    return total / weights


def _scaled(span: slice, by: int) -> slice:
    return slice(span.start * by, span.stop * by)


def _spans(side: int, tile: int, overlap: int, grow: int) -> Iterator[tuple[slice, Tensor]]:
    """Equal spans that cover a side, and the weights of each afterwards: they fade towards its neighbours."""
    tile = min(tile, side)
    count = 1 + math.ceil((side - tile) / (tile - overlap))
    fade, flat = _fade(tile * grow, overlap * grow), torch.ones(tile * grow)
    for index in range(count):
        start = round(index * (side - tile) / max(count - 1, 1))
        yield (
            slice(start, start + tile),
            (fade if index > 0 else flat) * (fade.flip(0) if index < count - 1 else flat),
        )


def _fade(side: int, overlap: int) -> Tensor:
    """Weights that rise over the overlap as a squared sine, so that those of two neighbours sum to 1."""
    place = (torch.arange(side) + 0.5) / max(overlap, 0.5)
    return torch.sin(0.5 * math.pi * place.clamp(max=1.0)) ** 2
