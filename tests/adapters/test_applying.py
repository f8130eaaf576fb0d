"""Adapters on and off again: what they add, and that nothing of them is left."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fromnoise.adapters import Adapted, Adapter, Stack, Use, applied, match
from fromnoise.adapters.factors import Factors
from fromnoise.adapters.keys import layers
from fromnoise.runtime.errors import FromnoiseError, UsageError
from tests.adapters.models import bits, cp_lora, drawn, for_layers, loha, lokr, lora, parts, same_bits, sdxl_parts
from tests.parity.oracle import difference

MAKERS: dict[str, Callable[..., Factors]] = {"lora": lora, "loha": loha, "lokr": lokr}


def adapter(modules: dict[str, nn.Module], make: Callable[..., Factors] = lora, name: str = "made") -> Adapter:
    """An adapter for all layers of all parts; a U-Net's first and last layer are too narrow for LoKr."""
    only = "transformer_blocks" if make is lokr else ""
    named = {part: for_layers(each, make, only if part == "unet" else "") for part, each in modules.items()}
    return Adapter(name, make.__name__, named)


def added_to(module: nn.Module, uses: list[tuple[float, Adapter]], part: str = "unet") -> dict[str, Tensor]:
    """The weights as they should be: the module's own plus all deltas, in float64."""
    weights = {name: each.weight.double() for name, each in layers(module).items()}
    for strength, each in uses:
        for name, factors in each.parts[part].items():
            delta = factors.to(torch.device("cpu"), torch.float64).delta().reshape(weights[name].shape)
            weights[name] = weights[name] + strength * delta
    return weights


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_off_again_every_bit_is_as_before(kind: str, dtype: torch.dtype) -> None:
    modules = {name: each.to(dtype) for name, each in parts().items()}
    made = adapter(modules, MAKERS[kind])
    before = {name: bits(each) for name, each in modules.items()}
    tensors = {name: each.weight for name, each in layers(modules["unet"]).items()}
    plain = drawn(modules["unet"], dtype)
    for fused in (True, False):
        with applied(modules, [Use(made, 0.8)], fused=fused):
            assert difference(drawn(modules["unet"], dtype).float(), plain.float()) > 0.05
        assert all(same_bits(each, before[name]) for name, each in modules.items())
        assert all(each.weight is tensors[name] for name, each in layers(modules["unet"]).items())
        assert all("forward" not in vars(each) for each in modules["unet"].modules())
        assert torch.equal(drawn(modules["unet"], dtype), plain)


@pytest.mark.parametrize("fused", [True, False])
def test_several_are_weighed_and_added_up(fused: bool) -> None:
    modules = parts()
    one, two = adapter(modules, lora, "one"), adapter(modules, loha, "two")
    reference = parts()["unet"]
    for name, weight in added_to(reference, [(0.8, one), (-0.3, two)]).items():
        layers(reference)[name].weight.copy_(weight)
    with applied(modules, [Use(one, 0.8), Use(two, -0.3)], fused=fused):
        assert difference(drawn(modules["unet"]), drawn(reference)) <= 1e-5


@pytest.mark.parametrize("fused", [True, False])
def test_in_bfloat16_it_is_the_float32_picture_within_rounding(fused: bool) -> None:
    exact, rounded = parts(), {name: each.bfloat16() for name, each in parts().items()}
    uses = [Use(adapter(exact), 0.8), Use(adapter(exact, loha), 0.5)]
    with applied(exact, uses), applied(rounded, uses, fused=fused):
        mine = drawn(rounded["unet"], torch.bfloat16)
        assert mine.dtype == torch.bfloat16
        assert difference(mine.float(), drawn(exact["unet"])) <= 0.05


def test_convolutions_in_cp_form() -> None:
    modules = parts()
    named = {name: cp_lora(tuple(each.weight.shape)) for name, each in layers(modules["unet"]).items()
             if each.weight.ndim == 4 and each.weight.shape[-1] == 3}  # fmt: skip
    made = Adapter("cp", "lora", {"unet": named})
    reference = parts()["unet"]
    for name, weight in added_to(reference, [(1.0, made)]).items():
        layers(reference)[name].weight.copy_(weight)
    expected = drawn(reference)
    assert difference(drawn(modules["unet"]), expected) > 0.05
    for fused in (True, False):
        with applied(modules, [Use(made)], fused=fused):
            assert difference(drawn(modules["unet"]), expected) <= 1e-5


def test_unet_and_text_have_weights_of_their_own() -> None:
    modules = parts()
    made = adapter(modules)
    before = {name: bits(each) for name, each in modules.items()}
    with applied(modules, [Use(made, unet=0.5, text=0.0)]):
        assert not same_bits(modules["unet"], before["unet"])
        assert same_bits(modules["text_encoder"], before["text_encoder"])
    with applied(modules, [Use(made, unet=0.0, text=1.0)]):
        assert same_bits(modules["unet"], before["unet"])
        assert not same_bits(modules["text_encoder"], before["text_encoder"])
    assert Use(made, 0.5).weight("text_encoder_2") == 0.5
    assert Use(made, 0.5, 0.25).weight("text_encoder_2") == 0.25


def test_off_again_after_an_error() -> None:
    modules = parts()
    before = bits(modules["unet"])
    with pytest.raises(ZeroDivisionError), applied(modules, [Use(adapter(modules))]):
        raise ZeroDivisionError
    assert same_bits(modules["unet"], before)


def test_fused_weights_are_made_once_and_again_when_the_weight_is_another() -> None:
    modules = parts()
    adapted = Adapted(modules, [Use(adapter(modules))])
    layer = layers(modules["unet"])["conv_in"]
    with adapted:
        first = layer.weight
    with adapted:
        assert layer.weight is first
    layer.weight = nn.Parameter(torch.zeros_like(layer.weight), requires_grad=False)
    with adapted:
        assert layer.weight is not first
        delta = adapter(modules).parts["unet"]["conv_in"].delta()
        assert torch.allclose(layer.weight.flatten(1), delta)


def test_made_in_inference_mode_it_still_serves_gradients() -> None:
    modules = parts()
    for fused in (True, False):
        adapted = Adapted(modules, [Use(adapter(modules))], fused=fused)
        with torch.inference_mode(), adapted:
            drawn(modules["unet"])
        linear = layers(modules["text_encoder"])["text_model.encoder.layers.0.mlp.fc1"]
        x = torch.ones(1, 32, requires_grad=True)
        with adapted:
            linear(x).sum().backward()
        assert x.grad is not None and bool(x.grad.any())


def test_gradients_reach_the_factors_of_a_side_path() -> None:
    modules = parts()
    made = adapter(modules)
    factors = made.parts["text_encoder"]["text_model.encoder.layers.0.mlp.fc1"]
    factors.up.requires_grad_(True)  # type: ignore[attr-defined]
    with applied(modules, [Use(made)], fused=False):
        modules["text_encoder"](torch.tensor([[1, 2, 513]])).sum().backward()
    assert bool(factors.up.grad.any())  # type: ignore[attr-defined]


def test_memory_layout_of_convolutions_is_kept() -> None:
    modules = parts()
    modules["unet"].to(memory_format=torch.channels_last)
    with applied(modules, [Use(adapter(modules))]):
        assert layers(modules["unet"])["mid_block.resnets.0.conv1"].weight.is_contiguous(
            memory_format=torch.channels_last
        )


def test_counts_and_what_has_no_place_are_reported() -> None:
    modules = parts()
    made = adapter(modules)
    strange = {**made.parts["unet"], "up_blocks_9_conv": lora((4, 4))}
    matched = match(Adapter("odd", "lora", {**made.parts, "unet": strange}), {"unet": modules["unet"]})
    count = len(made.parts["unet"])
    assert matched.counts == {"unet": (count, count + 1), "text_encoder": (0, 12)}
    assert (matched.unplaced, matched.absent) == (("unet: up_blocks_9_conv",), ("text_encoder",))
    assert f"unet {count} of {count + 1}" in str(matched) and "up_blocks_9_conv" in str(matched)


def test_matching_nothing_is_an_error_with_the_first_keys() -> None:
    made = Adapter("far", "lora", {"unet": {f"blocks.{index}": lora((4, 4)) for index in range(5)}}, "flux1")
    with pytest.raises(FromnoiseError, match=r"far matches nothing.*flux1.*unet: blocks\.0.*…"):
        applied(parts(), [Use(made)])
    with pytest.raises(FromnoiseError, match="matches nothing in this model's text_encoder"):
        applied({"text_encoder": parts()["text_encoder"]}, [Use(made)])


def test_another_family_is_an_error() -> None:
    narrow = parts()
    with pytest.raises(FromnoiseError, match=r"belongs to another model.*other sizes.*instead of"):
        applied(narrow, [Use(adapter({"unet": sdxl_parts()["unet"]}))])
    stated = Adapter("stated", "lora", adapter(narrow).parts, "sdxl")
    applied(narrow, [Use(stated)])  # a model of no published family: shapes decide
    narrow["unet"].config = type("C", (), {"cross_attention_dim": 768, "to_json": narrow["unet"].config.to_json})()
    with pytest.raises(
        FromnoiseError, match=r"trained on Stable Diffusion XL, and this model is Stable Diffusion 1\.x"
    ):
        applied(narrow, [Use(stated)])


def test_one_layer_named_in_two_layouts_is_an_error() -> None:
    q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    modules = parts()
    factors = lora(tuple(layers(modules["unet"])[q].weight.shape))
    with pytest.raises(FromnoiseError, match="twice"):
        match(Adapter("double", "lora", {"unet": {q: factors, q.replace(".", "_"): factors}}), modules)


@pytest.mark.parametrize("fused", [False, True])
def test_a_stack_put_on_weighed_and_taken_off(fused: bool) -> None:
    modules = parts()
    before = {name: bits(each) for name, each in modules.items()}
    plain = drawn(modules["unet"])
    one, two = adapter(modules, lora, "one"), adapter(modules, loha, "two")
    stack = Stack(modules, fused=fused)

    def expected(*uses: Use) -> Tensor:
        with applied(other, uses):
            return drawn(other["unet"])

    other = parts()
    assert stack.add(one, 0.5).counts["unet"] == (83, 83)
    assert difference(drawn(modules["unet"]), expected(Use(one, 0.5))) <= 1e-5
    stack.add(two, 0.25)
    stack.weigh("one", -0.5)
    both = expected(Use(one, -0.5), Use(two, 0.25))
    assert difference(drawn(modules["unet"]), both) <= 1e-5
    stack.fuse(not fused)
    assert difference(drawn(modules["unet"]), both) <= 1e-5
    stack.remove("one")
    assert difference(drawn(modules["unet"]), expected(Use(two, 0.25))) <= 1e-5
    with pytest.raises(UsageError, match="on already"):
        stack.add(two)
    with pytest.raises(UsageError, match="no adapter called 'one'"):
        stack.remove("one")
    with applied(modules, [Use(one, 0.1)]):
        assert difference(drawn(modules["unet"]), expected(Use(one, 0.1), Use(two, 0.25))) <= 1e-5
    stack.clear()
    assert stack.uses == ()
    assert all(same_bits(each, before[name]) for name, each in modules.items())
    assert torch.equal(drawn(modules["unet"]), plain)


def test_threads_with_different_adapters_get_their_own_pictures() -> None:
    modules = {"unet": parts()["unet"]}
    before = bits(modules["unet"])
    one, two = adapter(modules, lora, "one"), adapter(modules, loha, "two")
    kinds = [Adapted(modules), Adapted(modules, [Use(one)]), Adapted(modules, [Use(two)], fused=False)]
    alone = []
    for each in kinds:
        with each:
            alone.append(drawn(modules["unet"]))
    assert difference(alone[0], alone[1]) > 0.05 and difference(alone[1], alone[2]) > 0.05
    wrong: list[str] = []

    def draw(index: int) -> None:
        for _ in range(6):
            with kinds[index]:
                if not torch.equal(drawn(modules["unet"]), alone[index]):
                    wrong.append(f"picture of {index}")

    threads = [threading.Thread(target=draw, args=(index % 3,)) for index in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=60)
    assert not any(each.is_alive() for each in threads)
    assert not wrong
    assert same_bits(modules["unet"], before)
