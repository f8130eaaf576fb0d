"""`--fast`: the model's few-step LoRA and its settings, wherever a request says so."""

from __future__ import annotations

import copy
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.adapters import Lora as Factors
from fromnoise.adapters import write_lora
from fromnoise.adapters.keys import layers
from fromnoise.checkpoints import save_module
from fromnoise.images.convert import to_images
from fromnoise.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from fromnoise.pipeline import last, load
from fromnoise.request import Lora, Request
from fromnoise.runtime.errors import FromnoiseError, UsageError

SAID = {"steps": 3, "guidance": 1.0, "sampler": "euler", "schedule": "trailing"}


def write_fast(model: Path, place: Path, said: str | None = json.dumps(SAID)) -> Path:
    """Random factors for every linear layer of the model's U-Net."""
    generator = torch.Generator().manual_seed(0)
    found = {name: each.weight for name, each in layers(load(model).unet).items() if each.weight.ndim == 2}
    made = {
        name: Factors(
            torch.randn(len(each), 2, generator=generator) / 2, torch.randn(2, each.shape[1], generator=generator) / 2
        )
        for name, each in found.items()
    }
    write_lora(place, {"unet": made}, metadata={} if said is None else {"fromnoise.fast": said})
    return place


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    write_fast(copy, copy / "fast.safetensors")
    return copy


def test_fast_is_the_lora_with_its_settings(model: Path) -> None:
    pipeline = load(model)
    fast = pipeline("a cat", seed=3, fast=True)[0]
    by_hand = pipeline("a cat", seed=3, loras=(Lora(str(model / "fast.safetensors")),), **SAID)[0]
    assert fast.image.tobytes() == by_hand.image.tobytes()
    assert fast.image.tobytes() != pipeline("a cat", seed=3, **SAID)[0].image.tobytes()
    assert {name: getattr(fast.request, name) for name in SAID} == SAID
    assert fast.request.loras == () and [each.name for each in fast.request.hashes] == ["fast"]


def test_a_fast_picture_replays(model: Path) -> None:
    pipeline = load(model)
    first = pipeline("a cat", seed=3, fast=True, count=2)[1]
    again = load(model)(Request.from_json(first.request.to_json()))[0]
    assert again.image.tobytes() == first.image.tobytes()
    assert again.request == first.request


def test_what_is_said_wins_over_its_settings(model: Path) -> None:
    request = load(model).resolve("a cat", fast=True, steps=6, sampler="lcm")
    assert (request.steps, request.sampler, request.guidance) == (6, "lcm", 1.0)


def test_image_to_image_runs_the_last_of_its_steps(model: Path) -> None:
    pipeline = load(model)
    buffer = io.BytesIO()
    pipeline("a cat", seed=3, fast=True)[0].image.save(buffer, "PNG")
    request = Request("a dog", seed=4, fast=True, init=buffer.getvalue(), strength=0.7)
    assert pipeline.run_steps(request) == 2
    assert pipeline.sigmas(request).tolist() == pipeline.sigmas(Request(fast=True)).tolist()[1:]
    assert pipeline(request)[0].image.size == (16, 16)


def test_another_adapter_goes_with_it(model: Path, tmp_path: Path) -> None:
    other = Lora(str(write_fast(model, tmp_path / "other.safetensors")), 0.5)
    pipeline = load(model)
    both = pipeline("a cat", seed=3, fast=True, loras=(other,))[0]
    assert both.image.tobytes() != pipeline("a cat", seed=3, fast=True)[0].image.tobytes()
    assert [each.name for each in both.request.hashes] == ["fast", "other"]


def test_a_model_without_one_says_how_to_get_it(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"no few-step LoRA; make one with: fromnoise train distill .*fast"):
        load(tiny_model)("a cat", fast=True)


@pytest.mark.parametrize("said", [None, "{", '{"steps": 4}', "4"])
def test_a_lora_that_does_not_say_how(tiny_model: Path, tmp_path: Path, said: str | None) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    write_fast(copy, copy / "fast.safetensors", said)
    with pytest.raises(FromnoiseError, match=r"fast\.safetensors"):
        load(copy).resolve("a cat", fast=True)


def test_the_embedded_model_has_one() -> None:
    request = load().resolve("a cat", fast=True)
    assert (request.steps, request.guidance, request.sampler) == (4, 1.0, "euler")


def add_tiny(model: Path, seed: int = 0, **other: Any) -> None:
    """A tiny autoencoder of random weights for the model's latents, of four channels and a factor of 2."""
    fields = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), **other}
    widths = (8, 8, 8)[: len(fields["num_decoder_blocks"])]
    config = TinyAutoencoderConfig(decoder_block_out_channels=widths, encoder_block_out_channels=(8, 8), **fields)
    torch.manual_seed(seed)
    save_module(model / "vae_tiny", TinyAutoencoder(config), "AutoencoderTiny")


def test_the_tiny_autoencoder_decodes_fast_drawings_alone(model: Path) -> None:
    slow, fast = load(model)("a cat", seed=3)[0], load(model)("a cat", seed=3, fast=True)[0]
    add_tiny(model)
    pipeline = load(model)
    assert pipeline("a cat", seed=3)[0].image.tobytes() == slow.image.tobytes()
    made = pipeline("a cat", seed=3, fast=True)[0]
    assert made.image.tobytes() != fast.image.tobytes()
    latents = last(pipeline.steps("a cat", seed=3, fast=True)).x
    assert pipeline.tiny is not None
    assert made.image.tobytes() == to_images(pipeline.tiny.decode(latents))[0].tobytes()
    assert pipeline.decode(latents)[0].tobytes() == fast.image.tobytes()
    assert pipeline("a cat", seed=3, fast=True, count=2)[0].image.tobytes() == made.image.tobytes()


def test_pictures_say_which_autoencoder_decoded_them(model: Path) -> None:
    assert [each.kind for each in load(model).resolve("a cat", fast=True).hashes] == ["lora"]
    add_tiny(model)
    first = load(model)("a cat", seed=3, fast=True)[0]
    assert [(each.kind, each.name) for each in first.request.hashes] == [("lora", "fast"), ("vae", "vae_tiny")]
    assert load(model).resolve("a cat").hashes == ()
    again = load(model)(Request.from_json(first.request.to_json()))[0]
    assert (again.image.tobytes(), again.request) == (first.image.tobytes(), first.request)
    add_tiny(model, seed=1)
    assert load(model)(Request.from_json(first.request.to_json()))[0].request.hashes != first.request.hashes


def test_an_autoencoder_that_was_asked_for_decodes_fast_drawings_too(model: Path, tiny_model: Path) -> None:
    before = load(model)("a cat", seed=3, fast=True)[0]
    add_tiny(model)
    made = load(model, vae=tiny_model)("a cat", seed=3, fast=True)[0]
    assert made.image.tobytes() == before.image.tobytes()
    assert [each.name for each in made.request.hashes if each.kind == "vae"] == [tiny_model.stem]


def test_a_damaged_tiny_autoencoder_is_said(model: Path) -> None:
    add_tiny(model)
    weights = model / "vae_tiny" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FromnoiseError, match="vae_tiny"):
        load(model)("a cat", fast=True)


@pytest.mark.parametrize("other", [{"latent_channels": 8}, {"num_decoder_blocks": (1, 1, 1)}])
def test_one_for_other_latents_is_said(model: Path, other: dict[str, Any]) -> None:
    add_tiny(model, **other)
    with pytest.raises(FromnoiseError, match="vae_tiny doesn't fit this model's latents"):
        load(model)("a cat", fast=True)


def test_a_large_one_in_its_place_is_said(model: Path) -> None:
    shutil.copytree(model / "vae", model / "vae_tiny")
    with pytest.raises(FromnoiseError, match="vae_tiny doesn't fit"):
        load(model)("a cat", fast=True)


def test_the_embedded_models_tiny_autoencoder_says_the_same_packed_and_what_the_large_one_says() -> None:
    pipeline = load(dtype="float32")
    latents = last(pipeline.steps("a red apple", seed=1, count=2, fast=True)).x
    packed, plain = pipeline.tiny, copy.deepcopy(pipeline.tiny)
    assert packed is not None and plain is not None
    assert any(each.is_mkldnn for each in packed.parameters())
    assert not any(each.is_mkldnn for each in plain.parameters())
    made, again = pipeline.pixels(latents, fast=True), plain.decode(latents)
    assert float((made - again).abs().max()) < 1e-4
    missed = (made.clamp(-1, 1) - pipeline.pixels(latents).clamp(-1, 1)) / 2
    assert -10 * missed.square().mean().log10() > 28  # decibels
