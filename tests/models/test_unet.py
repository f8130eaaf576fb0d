from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fromnoise.models.extras import Control, Extras
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.nn import attention
from tests.tiny import UNET, randomise

SDXL = replace(
    UNET,
    transformer_layers_per_block=(1, 2),
    attention_head_dim=(2, 4),
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=64,
)


def inputs(config: UNetConfig) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 5, config.cross_attention_dim)


def control(config: UNetConfig) -> Control:
    one, two = config.block_out_channels
    shapes = [(one, 8), (one, 8), (one, 4), (two, 4)]
    return Control(tuple(torch.randn(2, width, side, side) for width, side in shapes), torch.randn(2, two, 4, 4))


def extras(config: UNetConfig) -> Extras:
    sizes = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]] * 2)
    return Extras(torch.randn(2, 16), sizes, None, control(config), torch.tensor([True, False]))


@pytest.mark.parametrize("config", [UNET, SDXL], ids=["sd1", "sdxl"])
def test_it_compiles_in_one_piece(config: UNetConfig) -> None:
    unet = randomise(UNet(config)).eval()
    compiled = torch.compile(unet, backend="eager", fullgraph=True)
    given = extras(config) if config is SDXL else Extras(guidance=torch.tensor([7.5, 1.0]))
    x, time, words = inputs(config)
    with torch.no_grad():
        assert torch.allclose(compiled(x, time, words, given), unet(x, time, words, given), atol=1e-5)
        if config is UNET:
            assert torch.allclose(compiled(x, time, words), unet(x, time, words), atol=1e-5)


def test_sdxl_without_its_extras_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"pooled and extras\.time_ids"):
        UNet(SDXL)(*inputs(SDXL))


@pytest.mark.parametrize("name", ["pooled", "time_ids", "control", "perturbed"])
def test_every_extra_counts(name: str) -> None:
    unet, given, given_inputs = randomise(UNet(SDXL)).eval(), extras(SDXL), inputs(SDXL)
    other = {
        "pooled": torch.randn(2, 16),
        "time_ids": torch.zeros(2, 6),
        "control": None,
        "perturbed": torch.tensor([False, False]),
    }
    with torch.no_grad():
        one, two = unet(*given_inputs, given), unet(*given_inputs, replace(given, **{name: other[name]}))
    changed = (one - two).abs().amax((1, 2, 3)) > 1e-3
    assert changed.tolist() == ([True, False] if name == "perturbed" else [True, True])


def test_guidance_counts_where_the_network_was_trained_with_it() -> None:
    plain, lcm = (randomise(UNet(replace(UNET, time_cond_proj_dim=each))).eval() for each in (None, 8))
    given_inputs, given = inputs(UNET), Extras(guidance=torch.tensor([7.5, 1.0]))
    with torch.no_grad():
        assert torch.equal(plain(*given_inputs, given), plain(*given_inputs))
        assert not torch.allclose(lcm(*given_inputs, given), lcm(*given_inputs), atol=1e-3)


def test_control_of_another_shape_is_an_error() -> None:
    unet, given = UNet(UNET), control(UNET)
    with pytest.raises(ValueError, match="zip"):
        unet(*inputs(UNET), Extras(control=Control(given.down[:-1], given.mid)))


@pytest.mark.parametrize(
    ("upcast", "dtype", "inside"),
    [
        (True, torch.float16, torch.float32),
        (True, torch.bfloat16, torch.float32),
        (True, torch.float64, torch.float64),
        (False, torch.float16, torch.float16),
    ],
)
def test_upcast_attention(
    upcast: bool, dtype: torch.dtype, inside: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.extend(each.dtype for each in (q, k, v))
        return attend(q, k, v)

    attend = attention.attend
    monkeypatch.setattr(attention, "attend", watched)
    layer = attention.Attention(16, 2, upcast=upcast).to(dtype)
    assert layer(torch.randn(1, 6, 16, dtype=dtype)).dtype == dtype
    assert set(seen) == {inside}


def test_the_config_reaches_every_attention() -> None:
    layers = [each for each in UNet(replace(UNET, upcast_attention=True)).modules() if hasattr(each, "upcast")]
    assert layers and all(each.upcast for each in layers)
