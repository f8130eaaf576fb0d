"""Small models of the published families, and adapters with random factors for their layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fromnoise.adapters.factors import Factors, Loha, Lokr, Lora
from fromnoise.adapters.keys import layers
from fromnoise.checkpoints.building import build
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.models.unet import UNet, UNetConfig
from tests.small_families import small, unet_inputs
from tests.tiny import TEXT, UNET, randomise


def parts() -> dict[str, nn.Module]:
    """A tiny U-Net and text encoder, random and frozen."""
    made: dict[str, nn.Module] = {"unet": randomise(UNet(UNET), 1), "text_encoder": randomise(ClipText(TEXT), 2)}
    for each in made.values():
        each.eval().requires_grad_(False)
    return made


def sdxl_parts() -> dict[str, nn.Module]:
    """SDXL's parts, narrow and without values: names and shapes are all that matters of them."""
    return {name: build(small("sdxl", name)) for name in ("unet", "text_encoder", "text_encoder_2")}


def two_encoders() -> dict[str, nn.Module]:
    """Two text encoders of different widths, as SDXL has them."""
    wide = TextConfig(**{**vars(TEXT), "hidden_size": 48, "eos_token_id": 2})
    return {
        "text_encoder": parts()["text_encoder"],
        "text_encoder_2": randomise(ClipText(wide), 4).requires_grad_(False),
    }


def drawn(unet: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """What a U-Net makes of fixed inputs."""
    assert isinstance(unet.config, UNetConfig)
    x, time, words, extras = unet_inputs(unet.config, 2, 8, dtype)
    with torch.no_grad():
        return unet(x, time, words, extras)


def bits(module: nn.Module) -> dict[str, Tensor]:
    """A copy of every weight."""
    return {name: each.clone() for name, each in module.state_dict().items()}


def same_bits(module: nn.Module, before: Mapping[str, Tensor]) -> bool:
    """True when every weight is as it was."""
    now = module.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in before)


def random(*shape: int, seed: int = 0, spread: float = 0.2) -> Tensor:
    """Random numbers, the same for the same seed and shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 17 * sum(shape))) * spread


def lora(shape: tuple[int, ...], seed: int = 0, rank: int = 3, scale: float = 0.7) -> Lora:
    """A LoRA for a weight of this shape."""
    return Lora(random(shape[0], rank, seed=seed), random(rank, *shape[1:], seed=seed + 1), scale=scale)


def cp_lora(shape: tuple[int, ...], seed: int = 0, rank: int = 3) -> Lora:
    """A convolution's CP decomposition."""
    up, down = random(shape[0], rank, 1, 1, seed=seed), random(rank, shape[1], 1, 1, seed=seed + 1)
    return Lora(up, down, random(rank, rank, *shape[2:], seed=seed + 2), scale=0.5)


def loha(shape: tuple[int, ...], seed: int = 0, rank: int = 3) -> Loha:
    """A LoHa without Tucker cores."""
    inputs = torch.Size(shape[1:]).numel()
    pairs = [random(*side, seed=seed + index) for index, side in enumerate([(shape[0], rank), (rank, inputs)] * 2)]
    return Loha(*pairs, scale=1.3)


def lokr(shape: tuple[int, ...], seed: int = 0, rank: int = 2) -> Lokr:
    """A LoKr whose second side is factorised."""
    w1 = random(4, 2, seed=seed)
    w2_a = random(shape[0] // 4, rank, seed=seed + 1)
    w2_b = random(rank, torch.Size(shape[1:]).numel() // 2, seed=seed + 2)
    return Lokr(w1=w1, w2_a=w2_a, w2_b=w2_b, scale=20.0)


def for_layers(module: nn.Module, make: Callable[..., Factors], only: str = "") -> dict[str, Factors]:
    """Factors for every layer whose name holds `only`, different for each."""
    named = layers(module)
    return {
        name: make(tuple(each.weight.shape), seed=7 * index)
        for index, (name, each) in enumerate(named.items())
        if only in name
    }
