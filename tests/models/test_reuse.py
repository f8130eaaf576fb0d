"""Deep features kept between calls: exact where nothing is reused, and what is recomputed is what was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fromnoise.models.extras import Control, Extras, Reuse
from fromnoise.models.unet import UNet, UNetConfig
from tests.tiny import UNET, randomise

ATTENDS = replace(
    UNET,
    layers_per_block=2,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
)


def made(config: UNetConfig) -> UNet:
    unet = randomise(UNet(config).eval(), spread=0.1)
    assert isinstance(unet, UNet)
    return unet.requires_grad_(False)


@pytest.fixture(scope="module")
def unet() -> UNet:
    return made(ATTENDS)


def given(rows: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, words = torch.randn(rows, 4, 8, 6, generator=generator), torch.randn(rows, 5, 32, generator=generator)
    return x, torch.full((rows,), 500.0), words


@pytest.mark.parametrize("config", [UNET, ATTENDS])
@pytest.mark.parametrize("layers", [1, 2, 9])
def test_every_call_anew_is_bit_equal(config: UNetConfig, layers: int):
    unet, reuse = made(config), Reuse(1, layers)
    for seed in range(3):
        assert torch.equal(unet(*given(seed=seed), Extras(reuse=reuse)), unet(*given(seed=seed)))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_same_input_again_gives_the_same(unet: UNet, layers: int):
    reuse = Reuse(2, layers)
    first, second = (unet(*given(), Extras(reuse=reuse)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, unet(*given()))


def test_every_nth_call_is_exact_and_more_layers_are_nearer(unet: UNet):
    near = {layers: Reuse(3, layers) for layers in (1, 3)}
    apart: dict[int, list[float]] = {1: [], 3: []}
    x, time, words = given()
    for step in range(6):
        moved = x + 0.02 * step
        exact = unet(moved, time, words)
        for layers, reuse in near.items():
            found = unet(moved, time, words, Extras(reuse=reuse))
            apart[layers].append(float((found - exact).norm() / exact.norm()))
    for errors in apart.values():
        assert [error == 0 for error in errors] == [True, False, False, True, False, False]
    assert apart[3][1] < apart[1][1] < 0.5


def test_only_the_outer_layers_run_between(unet: UNet):
    ran: list[str] = []
    watched = {
        name: each for name, each in unet.named_modules() if name.endswith(("resnets.0", "resnets.1", "resnets.2"))
    }
    hooks = [each.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, each in watched.items()]
    reuse = Reuse(2, 2)
    unet(*given(), Extras(reuse=reuse))
    everything = len(ran)
    ran.clear()
    unet(*given(), Extras(reuse=reuse))
    for hook in hooks:
        hook.remove()
    assert everything == len(watched)
    assert ran == ["down_blocks.0.resnets.0", "up_blocks.1.resnets.1", "up_blocks.1.resnets.2"]


def test_another_number_of_rows_is_computed_anew(unet: UNet):
    reuse = Reuse(9, 1)
    unet(*given(2), Extras(reuse=reuse))
    x, time, words = given(1, seed=3)
    assert torch.equal(unet(x, time, words, Extras(reuse=reuse)), unet(x, time, words))


def test_the_state_goes_on_bit_exactly(unet: UNet):
    reuse = Reuse(3, 1)
    for seed in range(2):
        unet(*given(seed=seed), Extras(reuse=reuse))
    other = Reuse(3, 1)
    other.state = tuple(each.clone() for each in reuse.state)
    for seed in range(2, 6):
        assert torch.equal(unet(*given(seed=seed), Extras(reuse=other)), unet(*given(seed=seed), Extras(reuse=reuse)))


def test_controls_reach_both_kinds_of_calls(unet: UNet):
    x, time, words = given()
    kept = unet.descend(unet.conv_in(x), unet.embed(time, words, Extras()), words)
    control = Control(tuple(torch.randn_like(each) for each in kept), torch.randn_like(kept[-1]))
    reuse, exact = Reuse(2, 2), unet(x, time, words, Extras(control=control))
    for _ in range(2):
        assert torch.equal(unet(x, time, words, Extras(control=control, reuse=reuse)), exact)


def test_tokens_merge_at_the_finest_level_that_attends(unet: UNet):
    seen: dict[str, float] = {}
    for name, module in unet.named_modules():
        if name.endswith(("attentions.0", "attentions.1", "attentions.2")):
            module.register_forward_hook(
                lambda *args, name=name: seen.update({name: args[2].get("merge", 0.0)}), with_kwargs=True
            )
    exact = unet(*given())
    assert not torch.equal(unet(*given(), Extras(merge=0.5)), exact)
    assert {name.rsplit(".", 2)[0] for name, share in seen.items() if share} == {"down_blocks.0", "up_blocks.1"}
    assert torch.equal(unet(*given(), Extras(merge=0.0)), exact)
