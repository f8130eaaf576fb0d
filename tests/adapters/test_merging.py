"""Checkpoints merged, and a LoRA extracted from the difference of two."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fromnoise.adapters import extract, match, merged, read_adapter, write_lora
from fromnoise.adapters.extracting import nearest
from fromnoise.adapters.keys import layers
from fromnoise.checkpoints import Checkpoint, Part, open_checkpoint
from fromnoise.checkpoints.convert import write_checkpoint
from fromnoise.checkpoints.stored import Stored
from fromnoise.runtime.errors import FromnoiseError, UsageError
from tests.adapters.models import for_layers, lora, parts, random


def part(tensors: dict[str, Tensor], name: str = "unet") -> Part:
    held = {key: Stored.of(each) for key, each in tensors.items()}
    return Part(name, {"_class_name": "UNet2DConditionModel"}, Path("made"), "custom", held)


def checkpoint(**tensors: Tensor) -> Checkpoint:
    return Checkpoint(Path("made"), "custom", {"unet": part(tensors)})


def values(made: Checkpoint, name: str = "unet") -> dict[str, Tensor]:
    return {key: each.read() for key, each in made.parts[name].tensors.items()}


A, B, C = (random(4, 3, seed=index) for index in range(3))


def test_weighted_sum_and_added_difference() -> None:
    one, two, three = (checkpoint(w=each) for each in (A, B, C))
    assert torch.allclose(values(merged([one, two], 0.3))["w"], 0.7 * A + 0.3 * B, atol=1e-7)
    assert torch.allclose(values(merged([one, two, three], 0.3))["w"], A + 0.3 * (B - C), atol=1e-7)
    assert torch.equal(values(merged([one, two], 0.0))["w"], A)
    assert torch.equal(values(merged([one, two], 1.0))["w"], B)
    assert torch.equal(values(merged([one, two, two], 1.0))["w"], A)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_is_a_finite_number(weight: float) -> None:
    with pytest.raises(UsageError, match="the weight must be a number"):
        merged([checkpoint(w=A), checkpoint(w=B)], weight)


@pytest.mark.parametrize(("dtype", "weight"), [(torch.float32, 1e300), (torch.float16, 1e6)])
def test_a_weight_that_leaves_no_numbers_is_said(dtype: torch.dtype, weight: float) -> None:
    with pytest.raises(FromnoiseError, match=r"^w of made becomes numbers that are not finite[^\n]*$"):
        values(merged([checkpoint(w=A.to(dtype)), checkpoint(w=B)], weight))


def test_arithmetic_is_float32_and_the_first_ones_format_is_kept() -> None:
    half, brain = A.half(), (B * 1e-3).bfloat16()
    made = values(merged([checkpoint(w=half), checkpoint(w=brain), checkpoint(w=C)], 0.5))["w"]
    assert made.dtype == torch.float16
    assert torch.equal(made, (half.float() + 0.5 * (brain.float() - C)).half())
    count = torch.tensor([3])
    assert values(merged([checkpoint(w=A, n=count), checkpoint(w=B, n=count + 1)], 0.5))["n"] is not None
    assert int(values(merged([checkpoint(w=A, n=count), checkpoint(w=B, n=count + 1)], 0.5))["n"]) == 3


def test_nothing_is_read_before_it_is_written() -> None:
    def never() -> Tensor:
        raise AssertionError("read too early")

    lazy = checkpoint(w=A)
    lazy = replace(lazy, parts={"unet": replace(lazy.parts["unet"], tensors={"w": Stored((4, 3), A.dtype, never)})})
    made = merged([lazy, checkpoint(w=B)], 0.5)
    with pytest.raises(AssertionError, match="too early"):
        values(made)


def test_other_keys_shapes_or_parts_are_errors() -> None:
    with pytest.raises(FromnoiseError, match=r"not alike: 1 keys only in made \(v\)"):
        merged([checkpoint(w=A, v=A), checkpoint(w=B)], 0.5)
    with pytest.raises(FromnoiseError, match=r"1 keys of different shapes \(w \[4, 3\] and \[3, 4\]\)"):
        merged([checkpoint(w=A), checkpoint(w=B.T.contiguous())], 0.5)
    with pytest.raises(FromnoiseError, match=r"different parts: made has unet, made has vae"):
        merged([checkpoint(w=A), Checkpoint(Path("made"), "custom", {"vae": part({"w": B}, "vae")})], 0.5)
    with pytest.raises(UsageError, match="two checkpoints, or three"):
        merged([checkpoint(w=A)], 0.5)


def tuned(base: Checkpoint, change: dict[str, dict[str, Tensor]]) -> Checkpoint:
    """A checkpoint with `change` added to some weights."""
    made = {}
    for name, each in base.parts.items():
        added = {key: Stored.of(each.tensors[key].read() + delta) for key, delta in change.get(name, {}).items()}
        made[name] = replace(each, tensors={**each.tensors, **added})
    return replace(base, parts=made)


def test_a_whole_model_in_a_folder_and_in_a_file(tiny_model: Path, tmp_path: Path) -> None:
    base = open_checkpoint(tiny_model)
    other = tuned(base, {"unet": {key: torch.ones(each.shape) for key, each in base.parts["unet"].tensors.items()}})
    told = []
    for place in (tmp_path / "both", tmp_path / "both.safetensors"):
        write_checkpoint(merged([base, other], 0.25), place, progress=lambda done, total: told.append((done, total)))
        assert told[-1][0] == told[-1][1]
        again = open_checkpoint(place)
        for key, stored in base.parts["unet"].tensors.items():
            assert torch.allclose(again.parts["unet"].tensors[key].read(), stored.read() + 0.25, atol=1e-6), key
        for key, stored in base.parts["vae"].tensors.items():
            assert torch.allclose(again.parts["vae"].tensors[key].read(), stored.read(), rtol=1e-6), key


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (7, 5, 3, 3), (12, 3, 1, 1), (8, 8)])
def test_the_nearest_of_a_rank_is_that_of_the_singular_values(shape: tuple[int, ...]) -> None:
    difference = random(*shape)
    singular = torch.linalg.svdvals(difference.flatten(1).double())
    for rank in (1, 3, len(singular)):
        made = nearest(difference, rank)
        assert made.rank == rank and made.down.shape[1:] == shape[1:]
        rest = float((difference.flatten(1) - made.delta()).norm())
        assert rest == pytest.approx(float(singular[rank:].norm()), abs=1e-5)
        assert float(made.up.norm()) == pytest.approx(float(made.down.norm()), rel=1e-4)


def test_a_lora_that_was_fused_is_found_again(tiny_model: Path, tmp_path: Path) -> None:
    base, modules = open_checkpoint(tiny_model), parts()
    factors = {
        "unet": for_layers(modules["unet"], lora, "mid_block"),
        "text_encoder": for_layers(modules["text_encoder"], lora, "mlp"),
    }
    shapes = {part: layers(modules[part]) for part in factors}
    change = {
        part: {f"{name}.weight": each.delta().reshape(shapes[part][name].weight.shape) for name, each in named.items()}
        for part, named in factors.items()
    }
    found = extract(base, tuned(base, change), 3)
    assert {part: set(each) for part, each in found.loras.items()} == {
        part: set(each) for part, each in factors.items()
    }
    assert found.error < 1e-5 and all(each.error < 1e-5 for each in found.left.values())
    assert all(each.differed == 0 for each in found.beyond.values())
    write_lora(tmp_path / "found.safetensors", found.loras)
    for part, named in match(read_adapter(tmp_path / "found.safetensors"), modules).places.items():
        for name, place in named.items():
            assert torch.allclose(place.factors.delta(), factors[part][name].delta(), atol=1e-5)
    less = extract(base, tuned(base, change), 1)
    assert 0.2 < less.error < 0.9


def test_what_a_lora_cant_carry_counts_as_left(tiny_model: Path) -> None:
    base = open_checkpoint(tiny_model)
    shapes = {key: base.parts["unet"].tensors[key].shape for key in ("conv_in.weight", "conv_in.bias")}
    one = torch.outer(torch.ones(shapes["conv_in.weight"][0]), torch.ones(36)).reshape(shapes["conv_in.weight"])
    bias = torch.ones(shapes["conv_in.bias"])
    table = torch.ones(base.parts["text_encoder"].tensors["text_model.embeddings.token_embedding.weight"].shape)
    change = {
        "unet": {"conv_in.weight": one, "conv_in.bias": bias},
        "text_encoder": {"text_model.embeddings.token_embedding.weight": table},
    }
    found = extract(base, tuned(base, change), 4)
    assert found.loras.keys() == {"unet"} and found.layers == 1
    expected = float(bias.square().sum() / (bias.square().sum() + one.square().sum())) ** 0.5
    assert found.left["unet"].error == pytest.approx(expected, rel=1e-4)
    assert found.left["text_encoder"].error == pytest.approx(1.0)
    assert found.beyond["unet"].differed == pytest.approx(float(bias.square().sum()), rel=1e-4)


def test_the_format_of_the_tuned_weights_is_kept_and_its_rounding_counted() -> None:
    base, delta = torch.zeros(16, 16), random(16, 2) @ random(2, 16, seed=1)
    found = extract(checkpoint(**{"a.weight": base}), checkpoint(**{"a.weight": delta.half()}), 2)
    assert found.loras["unet"]["a"].up.dtype == torch.float16
    assert 1e-5 < found.error < 1e-2
    eight = extract(checkpoint(**{"a.weight": base}), checkpoint(**{"a.weight": delta.to(torch.float8_e4m3fn)}), 16)
    assert eight.loras["unet"]["a"].down.dtype == torch.float16
    assert eight.error < 1e-2
    exact = extract(checkpoint(**{"a.weight": base}), checkpoint(**{"a.weight": delta}), 2, dtype=torch.float32)
    assert exact.error < 1e-5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_of_no_numbers_is_named(value: float) -> None:
    with pytest.raises(FromnoiseError, match=r"a\.weight of .* not finite"):
        extract(checkpoint(**{"a.weight": A}), checkpoint(**{"a.weight": torch.full_like(A, value)}), 2)


def test_nothing_to_extract(tiny_model: Path) -> None:
    base = open_checkpoint(tiny_model)
    with pytest.raises(FromnoiseError, match="nothing to extract"):
        extract(base, base, 4)
    with pytest.raises(UsageError, match="at least 1"):
        extract(base, base, 0)
