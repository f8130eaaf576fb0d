"""How much work a network's call is, counted from its configuration alone: what `fromnoise plan` predicts from.

A multiplication and an addition are two operations. Convolutions, linear layers and attention's two products count;
norms and activations ride along with the block that they belong to. `B` pictures of h x w latents, M words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fromnoise.models.autoencoder import AutoencoderConfig
from fromnoise.models.clip_text import TextConfig
from fromnoise.models.tiny_autoencoder import TinyAutoencoderConfig
from fromnoise.models.unet import UNetConfig
from fromnoise.models.unet_blocks import TrunkConfig

Kind = Literal["convolution", "transformer", "narrow transformer", "attention"]
"""What runs at a speed of its own: blocks of convolutions, transformer blocks whose heads are wide or narrow (SD 1's
finest level), a single head over all pixels."""

WIDE = 64
"""Channels of a head that attention is fast with."""

COPIES = 1.2
"""Values that a block really holds for each that `Work` counts: layouts turned, buffers of the library below torch."""


@dataclass(frozen=True)
class Piece:
    """A part of a call: `flops` operations on `rows` pixels or tokens (of all pictures) that are `width` channels wide.

    `values` are those that it holds at its widest, for the memory it takes; `blocks` tells how many blocks of its kind
    it is, each of which takes some time to start.
    """

    kind: Kind
    flops: float
    rows: int
    width: int
    values: float
    blocks: float = 1.0

    @property
    def weights(self) -> float:
        """About how many weights it has: each does two operations on every row."""
        return self.flops / (2 * self.rows)


@dataclass(frozen=True)
class Work:
    """What a call consists of; `kept` values are held from its beginning to its end."""

    pieces: tuple[Piece, ...]
    kept: float = 0.0

    @property
    def flops(self) -> float:
        """All operations of the call."""
        return sum(each.flops for each in self.pieces)

    @property
    def values(self) -> float:
        """Values held at the call's peak, weights not counted."""
        return self.kept + max(each.values for each in self.pieces)


def conv(rows: int, before: int, after: int, kernel: int = 3) -> Piece:
    """A convolution that gives so many pixels."""
    return Piece("convolution", 2 * rows * kernel**2 * before * after, rows, after, rows * (before + after), 1 / 4)


def resnet(rows: int, before: int, after: int, time: int, batch: int) -> Piece:
    """A residual block; `time` is the width of the embedded time, 0 for none."""
    flops = 2 * rows * 9 * (before + after) * after + 2 * batch * time * after
    if before != after:
        flops += 2 * rows * before * after
    return Piece("convolution", flops, rows, after, rows * (2 * before + after))


def transformer(
    batch: int,
    tokens: int,
    width: int,
    words: int,
    context: int,
    heads: int,
    depth: int = 1,
    merged: float = 0.0,
) -> Piece:
    """A spatial transformer; self-attention does without a share `merged` of the tokens, which costs looking for."""
    rows, fewer = batch * tokens, tokens - int(tokens * merged)
    own = 8 * batch * fewer * width**2 + 4 * batch * fewer**2 * width
    other = 4 * rows * width**2 + 4 * batch * words * context * width + 4 * rows * words * width
    search = 2 * rows * 3 / 4 * tokens / 4 * width if merged else 0.0
    flops = depth * (own + other + search + 24 * rows * width**2) + 4 * rows * width**2
    kind = "transformer" if width // heads >= WIDE else "narrow transformer"
    return Piece(kind, flops, rows, width, rows * width * 11, depth)


def pixel_attention(batch: int, pixels: int, width: int) -> Piece:
    """The autoencoder's attention: one head over so many pixels."""
    flops = 8 * batch * pixels * width**2 + 4 * batch * pixels**2 * width
    return Piece("attention", flops, batch * pixels, width, batch * pixels * width * 6)


@dataclass(frozen=True)
class Level:
    """One level of a U-Net: pixels of a picture, and its channels."""

    pixels: int
    width: int
    attends: bool
    heads: int
    depth: int


def levels(config: TrunkConfig, height: int, width: int) -> list[Level]:
    """All levels of latents of a size, the finest first."""
    made: list[Level] = []
    for index, channels in enumerate(config.block_out_channels):
        attends = "CrossAttn" in config.down_block_types[index]
        made.append(Level(height * width, channels, attends, config.heads(index), config.depth(index)))
        height, width = -(-height // 2), -(-width // 2)
    return made


def control_work(config: TrunkConfig, batch: int, size: tuple[int, int], words: int) -> Work:
    """A ControlNet's call: the way down and the middle of a U-Net."""
    counter = _Counter(config, batch, words, 0.0, levels(config, *size))
    return Work((*counter.down(), *counter.middle()), sum(counter.kept))


def unet_work(
    config: UNetConfig, batch: int, size: tuple[int, int], words: int, *, merge: float = 0.0, outer: int | None = None
) -> Work:
    """A U-Net's call on so many rows of latents of (h, w); `outer` layers alone where deep ones are reused."""
    every = levels(config, *size)
    counter = _Counter(config, batch, words, merge, every)
    finest = every[0]
    ends = [conv(batch * finest.pixels, config.in_channels, finest.width)]
    ends.append(conv(batch * finest.pixels, finest.width, config.out_channels))
    if config.addition_embed_type == "text":
        ends.append(conv(batch * (words + 1), config.cross_attention_dim, 2 * config.cross_attention_dim, 1))
        ends.append(conv(batch, config.cross_attention_dim, config.cross_attention_dim + config.time_channels, 1))
    if outer is None:
        pieces = [*counter.down(), *counter.middle(), *counter.up()]
        kept = sum(counter.kept)
    else:
        outer = min(outer, config.layers_per_block + 1)
        pieces = [*list(counter.level_down(0))[: counter.layers(outer - 1, 0)], *counter.outermost(outer)]
        kept = (outer + 1) * batch * finest.pixels * finest.width
    return Work((*ends, *pieces), kept)


@dataclass(frozen=True)
class _Counter:
    """Counts a U-Net's levels on the way down, in the middle and up."""

    config: TrunkConfig
    batch: int
    words: int
    merge: float
    every: list[Level]

    def layers(self, count: int, index: int) -> int:
        """How many pieces so many layers of a level are."""
        return count * (2 if self.every[index].attends else 1)

    @property
    def kept(self) -> Iterator[float]:
        """Values of each map kept on the way down."""
        for index, level in enumerate(self.every):
            yield self.batch * level.pixels * level.width * self.config.layers_per_block
            finer = self.every[max(index - 1, 0)]
            yield self.batch * level.pixels * finer.width

    def layer(self, index: int, before: int, attends: bool, merges: bool = True) -> Iterator[Piece]:
        """A residual block and its transformer."""
        level = self.every[index]
        rows, time = self.batch * level.pixels, self.config.time_channels
        yield resnet(rows, before, level.width, time, self.batch)
        if attends:
            merged = self.merge if merges and index == self.config.finest_attention else 0.0
            words, context = self.words, self.config.cross_attention_dim
            yield transformer(self.batch, level.pixels, level.width, words, context, level.heads, level.depth, merged)

    def level_down(self, index: int) -> Iterator[Piece]:
        """A level on the way down, its last convolution halving it."""
        level = self.every[index]
        before = self.every[max(index - 1, 0)].width
        for number in range(self.config.layers_per_block):
            yield from self.layer(index, level.width if number else before, level.attends)
        if index < len(self.every) - 1:
            yield conv(self.batch * self.every[index + 1].pixels, level.width, level.width)

    def down(self) -> Iterator[Piece]:
        """The way down."""
        for index in range(len(self.every)):
            yield from self.level_down(index)

    def middle(self) -> Iterator[Piece]:
        """Residual block, transformer, residual block at the coarsest level."""
        level = len(self.every) - 1
        yield from self.layer(level, self.every[level].width, attends=True, merges=False)
        yield from self.layer(level, self.every[level].width, attends=False)

    def level_up(self, index: int) -> list[list[Piece]]:
        """A level on the way up, layer by layer, without the convolution that doubles it."""
        level, config = self.every[index], self.config
        assert isinstance(config, UNetConfig)
        below, finer = self.every[min(index + 1, len(self.every) - 1)].width, self.every[max(index - 1, 0)].width
        joined = [below + level.width] + [2 * level.width] * (config.layers_per_block - 1) + [level.width + finer]
        attends = "CrossAttn" in config.up_block_types[-1 - index]
        return [list(self.layer(index, before, attends)) for before in joined]

    def up(self) -> Iterator[Piece]:
        """The way up."""
        for index in reversed(range(len(self.every))):
            for layer in self.level_up(index):
                yield from layer
            if index:
                width = self.every[index].width
                yield conv(self.batch * self.every[index - 1].pixels, width, width)

    def outermost(self, count: int) -> Iterator[Piece]:
        """The last layers of the way up."""
        for layer in self.level_up(0)[-count:]:
            yield from layer


def decoder_work(config: AutoencoderConfig | TinyAutoencoderConfig, batch: int, size: tuple[int, int]) -> Work:
    """Decoding so many pictures from latents of (h, w)."""
    pixels = batch * size[0] * size[1]
    if isinstance(config, TinyAutoencoderConfig):
        return Work(tuple(_tiny(config, pixels)))
    return Work(tuple(_decoder(config, batch, pixels)))


def decoding_bytes(config: AutoencoderConfig | TinyAutoencoderConfig, size: tuple[int, int], value: int) -> float:
    """Memory that decoding one picture from latents of (h, w) takes at once, in values of so many bytes."""
    return COPIES * value * decoder_work(config, 1, size).values


def _decoder(config: AutoencoderConfig, batch: int, pixels: int) -> Iterator[Piece]:
    widths = config.block_out_channels[::-1]
    if config.use_post_quant_conv:
        yield conv(pixels, config.latent_channels, config.latent_channels, 1)
    yield conv(pixels, config.latent_channels, widths[0])
    yield from _middle(config, batch, pixels, widths[0])
    before = widths[0]
    for index, width in enumerate(widths):
        for _ in range(config.layers_per_block + 1):
            yield resnet(pixels, before, width, 0, batch)
            before = width
        if index < len(widths) - 1:
            pixels *= 4
            yield conv(pixels, width, width)
    yield conv(pixels, before, config.out_channels)


def encoder_work(config: AutoencoderConfig | TinyAutoencoderConfig, batch: int, size: tuple[int, int]) -> Work:
    """Encoding so many pictures to latents of (h, w)."""
    pixels = batch * size[0] * size[1] * config.factor**2
    if isinstance(config, TinyAutoencoderConfig):
        return Work(tuple(_tiny_encoder(config, pixels)))
    return Work(tuple(_encoder(config, batch, pixels)))


def _encoder(config: AutoencoderConfig, batch: int, pixels: int) -> Iterator[Piece]:
    widths, latents = config.block_out_channels, 2 * config.latent_channels
    yield conv(pixels, config.in_channels, widths[0])
    before = widths[0]
    for index, width in enumerate(widths):
        for _ in range(config.layers_per_block):
            yield resnet(pixels, before, width, 0, batch)
            before = width
        if index < len(widths) - 1:
            pixels //= 4
            yield conv(pixels, width, width)
    yield from _middle(config, batch, pixels, before)
    yield conv(pixels, before, latents)
    if config.use_quant_conv:
        yield conv(pixels, latents, latents, 1)


def _middle(config: AutoencoderConfig, batch: int, pixels: int, width: int) -> Iterator[Piece]:
    yield resnet(pixels, width, width, 0, batch)
    if config.mid_block_add_attention:
        yield pixel_attention(batch, pixels // batch, width)
    yield resnet(pixels, width, width, 0, batch)


def _tiny_encoder(config: TinyAutoencoderConfig, pixels: int) -> Iterator[Piece]:
    widths = config.encoder_block_out_channels
    yield conv(pixels, config.in_channels, widths[0])
    for index, (width, blocks) in enumerate(zip(widths, config.num_encoder_blocks, strict=True)):
        if index:
            pixels //= 4
            yield conv(pixels, width, width)
        for _ in range(3 * blocks):
            yield conv(pixels, width, width)
    yield conv(pixels, widths[-1], config.latent_channels)


def _tiny(config: TinyAutoencoderConfig, pixels: int) -> Iterator[Piece]:
    widths = config.decoder_block_out_channels
    yield conv(pixels, config.latent_channels, widths[0])
    for index, (width, blocks) in enumerate(zip(widths, config.num_decoder_blocks, strict=True)):
        for _ in range(3 * blocks):
            yield conv(pixels, width, width)
        if index < len(widths) - 1:
            pixels *= 4
            yield conv(pixels, width, width)
    yield conv(pixels, widths[-1], config.out_channels)


def text_work(config: TextConfig, batch: int) -> Work:
    """Encoding so many chunks of a prompt."""
    tokens, width = config.max_position_embeddings, config.hidden_size
    rows = batch * tokens
    flops = 8 * rows * width**2 + 4 * batch * tokens**2 * width + 4 * rows * width * config.intermediate_size
    layer = Piece("transformer", flops, rows, width, rows * config.intermediate_size * 2)
    return Work((layer,) * config.num_hidden_layers)
