"""Whether parts fit one another, by their configs alone, so that it is said before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fromnoise.checkpoints import Part
from fromnoise.checkpoints.building import read_config
from fromnoise.models.autoencoder import AutoencoderConfig
from fromnoise.models.clip_text import TextConfig
from fromnoise.models.controlnet import ControlNetConfig
from fromnoise.models.tiny_autoencoder import TinyAutoencoderConfig
from fromnoise.models.unet import UNetConfig
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.text import Tokenizer

C = TypeVar("C")


def require_agreeing(parts: Mapping[str, Part]) -> None:
    """FromnoiseError naming the file unless the U-Net works on the autoencoder's latents and reads the words' width."""
    unet = _config(parts["unet"], UNetConfig)
    latents = _config(parts["vae"], AutoencoderConfig, TinyAutoencoderConfig).latent_channels
    if unet.in_channels not in (latents, 2 * latents + 1) or unet.out_channels != latents:
        raise FromnoiseError(
            f"{parts['unet'].source} makes {unet.out_channels} channels of {unet.in_channels}, which is neither text "
            f"to image nor inpainting with the {latents} latent channels of {parts['vae'].source}; it can't be used"
        )
    texts = [part for name, part in parts.items() if name.startswith("text_encoder")]
    width = sum(_config(part, TextConfig).hidden_size for part in texts)
    if unet.cross_attention_dim != width:
        sources = " and ".join(str(part.source) for part in texts)
        raise FromnoiseError(
            f"{parts['unet'].source} reads words of width {unet.cross_attention_dim}, which are {width} wide in "
            f"{sources}; use parts of one family"
        )


def require_steerable(unet: Part, control: Part) -> None:
    """FromnoiseError naming the file unless a ControlNet was made for networks like this U-Net."""
    mine, its = _config(unet, UNetConfig), _config(control, ControlNetConfig)
    alike = ("block_out_channels", "cross_attention_dim", "addition_embed_type")
    if mine.out_channels != its.in_channels or any(getattr(mine, name) != getattr(its, name) for name in alike):
        raise FromnoiseError(f"the ControlNet {control.source} is for another family than {unet.source}")


def require_readable(tokenizer: Tokenizer, part: Part) -> None:
    """FromnoiseError naming the file unless a text encoder has a row for every token and every position."""
    config = _config(part, TextConfig)
    if (largest := max(tokenizer.vocabulary.values())) >= config.vocab_size:
        raise FromnoiseError(
            f"{part.source} knows {config.vocab_size} tokens, but its tokenizer's ids go up to {largest}; "
            "fetch the tokenizer that belongs to it"
        )
    if tokenizer.max_length > config.max_position_embeddings:
        raise FromnoiseError(
            f"{part.source} has {config.max_position_embeddings} positions, but its tokenizer's model_max_length is "
            f"{tokenizer.max_length}; write the former into its tokenizer_config.json"
        )


def _config(part: Part, *kinds: type[C]) -> C:
    if isinstance(config := read_config(part.config), kinds):
        return config
    raise FromnoiseError(f"{part.source} is of the class {part.class_name}, which can't be a {part.name}")
