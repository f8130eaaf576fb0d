"""Pictures to autoencoder to denoiser to a model folder that draws, at toy size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.checkpoints.folder import read_tensors, save_module
from fromnoise.data import load_dataset
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.tiny_autoencoder import TinyAutoencoderConfig
from fromnoise.pipeline import load
from fromnoise.runtime.errors import UsageError
from fromnoise.training import autoencoder, denoiser, tiny_autoencoder
from fromnoise.training.autoencoder import fold_statistics, new_autoencoder, psnr, sobel
from tests.small_dataset import write_dataset
from tests.tiny import AUTOENCODER, UNET, randomise

AUTOENCODER_RECIPE = "steps = 120\nbatch = 4\nrate = 3e-3\nwarmup = 10\naverage = 10\n"
DENOISER_RECIPE = """
text = "{text}"
autoencoder = "{vae}"
steps = {steps}
batch = 4
rate = 2e-3
warmup = 5
averages = [8]
export_every = 5
compile = false
varied = 0.5
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(AUTOENCODER, sample_size=32, scaling_factor=1.0)
    monkeypatch.setattr(autoencoder, "CONFIG", config)
    monkeypatch.setattr(denoiser, "CONFIG", replace(UNET, sample_size=16))


def train_denoiser(tmp_path: Path, run: str, tiny_model: Path, steps: int, *, resume: bool = False) -> Path:
    recipe = tmp_path / f"{run}-{steps}.toml"
    recipe.write_text(DENOISER_RECIPE.format(text=tiny_model, vae=tmp_path / "autoencoder", steps=steps))
    denoiser.train(tmp_path / "data", tmp_path / run, recipe, resume=resume)
    return tmp_path / run / "model-8"


def test_from_pictures_to_a_model_that_draws(tmp_path: Path, tiny_model: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    (tmp_path / "recipe.toml").write_text(AUTOENCODER_RECIPE)
    autoencoder.train(tmp_path / "data", tmp_path / "autoencoder", tmp_path / "recipe.toml")
    trained = denoiser.read_autoencoder(tmp_path / "autoencoder")
    pictures = autoencoder.to_model_range(torch.from_numpy(dataset.pixels(range(len(dataset)))))
    fresh = new_autoencoder(autoencoder.AutoencoderRecipe())
    assert psnr(trained.decode, trained.encode, pictures) > psnr(fresh.decode, fresh.encode, pictures) + 3

    whole = train_denoiser(tmp_path, "whole", tiny_model, 12)
    train_denoiser(tmp_path, "parts", tiny_model, 7)
    parts = train_denoiser(tmp_path, "parts", tiny_model, 12, resume=True)
    weights = "unet/diffusion_pytorch_model.safetensors"
    one, other = read_tensors(whole / weights), read_tensors(parts / weights)
    assert all(torch.equal(one[key], other[key]) for key in one)

    picture = load(whole)("a cherry, noto style", seed=0, steps=4)[0].image
    assert picture.size == (32, 32)
    assert np.asarray(picture).std() > 0


def test_an_anchor_needs_weights_to_go_on_from(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("anchor = 5.0\n")
    with pytest.raises(UsageError, match="init"):
        autoencoder.train(tmp_path / "data", tmp_path / "run", tmp_path / "recipe.toml")


def test_folding_normalises_the_latents_and_changes_no_picture() -> None:
    model = randomise(new_autoencoder(autoencoder.AutoencoderRecipe())).eval()
    assert isinstance(model, denoiser.Autoencoder)
    pictures = torch.rand(6, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = model.decode(model.encode(pictures))
        fold_statistics(model, pictures)
        latents = model.encode(pictures)
        after = model.decode(latents)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def test_a_frozen_encoder_keeps_its_latents(tmp_path: Path) -> None:
    recipe = autoencoder.AutoencoderRecipe(freeze_encoder=True)
    learns = {name for name, each in new_autoencoder(recipe).named_parameters() if each.requires_grad}
    assert {name.split(".")[0] for name in learns} == {"post_quant_conv", "decoder"}


def test_an_anchored_encoder_keeps_the_latents_that_it_had(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    torch.manual_seed(0)
    first = new_autoencoder(autoencoder.AutoencoderRecipe())
    save_module(tmp_path / "first", first, "AutoencoderKL")
    pictures = autoencoder.to_model_range(torch.from_numpy(dataset.pixels(range(len(dataset)))))
    moved: list[float] = []
    gained: list[float] = []
    for anchor in (0.0, 10.0):
        run = tmp_path / f"again-{anchor:g}"
        recipe = f'init = "{tmp_path / "first"}"\nvaried = 0.5\nanchor = {anchor}\n'
        (tmp_path / "recipe.toml").write_text(AUTOENCODER_RECIPE.replace("120", "40") + recipe)
        autoencoder.train(tmp_path / "data", run, tmp_path / "recipe.toml")
        again = denoiser.read_autoencoder(run)
        moved.append(float((encoded(again, pictures) - encoded(first, pictures)).square().mean()))
        gained.append(psnr(again.decode, again.encode, -pictures) - psnr(first.decode, first.encode, -pictures))
    assert min(gained) > 0.3  # of inverted pictures, which the dataset has none of
    assert moved[1] < 0.3 * moved[0]


@torch.no_grad()
def encoded(model: Autoencoder, pictures: torch.Tensor) -> torch.Tensor:
    return model.encode(pictures)


def test_sobel_sees_a_slope() -> None:
    ramp = torch.arange(5.0).expand(1, 3, 5, 5)
    torch.testing.assert_close(sobel(ramp)[:, ::2], torch.full((1, 3, 3, 3), 2.0))
    torch.testing.assert_close(sobel(ramp)[:, 1::2], torch.zeros(1, 3, 3, 3))


def test_a_tiny_autoencoder_learns_the_latents_of_a_large_one(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = {"latent_channels": 4, "num_encoder_blocks": (0, 1), "num_decoder_blocks": (1, 1)}
    config = TinyAutoencoderConfig(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(16, 8), **levels)
    monkeypatch.setattr(tiny_autoencoder, "CONFIG", config)
    write_dataset(tmp_path / "data")

    def train(run: str, steps: int, *, resume: bool = False) -> Path:
        fields = f'autoencoder = "{tiny_model}"\nsteps = {steps}\nbatch = 4\nwarmup = 2\naverage = 8\nvaried = 0.5\n'
        (tmp_path / "recipe.toml").write_text(fields)
        tiny_autoencoder.train(tmp_path / "data", tmp_path / run, tmp_path / "recipe.toml", resume=resume)
        return tmp_path / run / "vae_tiny"

    whole, _ = train("whole", 40), train("parts", 20)
    parts = train("parts", 40, resume=True)
    one, other = (read_tensors(each / "diffusion_pytorch_model.safetensors") for each in (whole, parts))
    assert all(torch.equal(one[key], other[key]) for key in one)

    monkeypatch.setattr(tiny_autoencoder, "CONFIG", replace(config, latent_channels=8))
    with pytest.raises(UsageError, match=r"autoencoder: .*has 4 channels and a factor of 2; .* is for 8 and 2"):
        train("other", 1)
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr(tiny_autoencoder, "CONFIG", config)

    large = denoiser.read_autoencoder(tiny_model)
    pictures = autoencoder.to_model_range(torch.from_numpy(load_dataset(tmp_path / "data").all_pixels.copy()))
    fresh = tiny_autoencoder.new_tiny_autoencoder(tiny_autoencoder.TinyAutoencoderRecipe())
    made = tiny_autoencoder.new_tiny_autoencoder(tiny_autoencoder.TinyAutoencoderRecipe(init=str(whole)))
    assert psnr(made.decode, large.encode, pictures) > psnr(fresh.decode, large.encode, pictures) + 3
    with torch.no_grad():
        wanted = large.encode(pictures)
        missed, before = (float((each.encode(pictures) - wanted).square().mean()) for each in (made, fresh))
    assert missed < 0.9 * before
