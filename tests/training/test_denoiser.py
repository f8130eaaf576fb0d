from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from fromnoise.checkpoints.folder import save_module
from fromnoise.data import load_dataset
from fromnoise.models.unet import UNet
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.text import TextEncoder
from fromnoise.training import denoiser as subject
from fromnoise.training.denoiser import CONFIG, Captioned, DenoiserRecipe, DenoiserTask, new_unet
from fromnoise.training.lessons import training_pictures
from fromnoise.training.order import draws, seed_after
from tests.small_dataset import write_dataset


class Silent:
    """A text encoder that says nothing."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), 1, CONFIG.cross_attention_dim)


def first_batch(folder: Path, power: float) -> Captioned:
    pictures = training_pictures(load_dataset(folder))
    with torch.device("meta"):
        network = UNet(CONFIG)
    latents = torch.zeros(len(pictures), 2, CONFIG.in_channels, 2, 2)
    recipe = DenoiserRecipe(power=power, compile=False)
    return DenoiserTask(network, cast(TextEncoder, Silent()), latents, pictures, recipe).batch(0)


def test_power_evens_out_what_min_snr_weighs(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    whole, half, none = (first_batch(tmp_path, power) for power in (1.0, 0.5, 0.0))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)[whole.times]
    snr = kept / (1 - kept)
    assert torch.allclose(whole.example.weight.double(), snr.clamp(max=5) / (snr + 1), rtol=1e-4)
    assert torch.allclose(half.example.weight.square(), whole.example.weight)
    assert torch.equal(none.example.weight, torch.ones(len(whole.times)))


def test_a_run_that_goes_on_meets_other_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "dataset")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"init = {json.dumps(str(EMBEDDED_MODEL / 'unet'))}\ncompile = false\n")
    tasks: list[DenoiserTask] = []
    monkeypatch.setattr(subject, "fit", lambda run, task, *rest, **how: tasks.append(task))
    subject.train(tmp_path / "dataset", tmp_path / "run", recipe)
    before, now = (draws(seed, 0, 1, 1)[0].generator("denoiser") for seed in (0, tasks[0].recipe.seed))
    assert not torch.equal(torch.randn(8, generator=before), torch.randn(8, generator=now))
    assert "seed = 0" in (tmp_path / "run" / "recipe.toml").read_text().splitlines()


def test_other_weights_mean_other_noise(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"some weights")
    second.write_bytes(b"the weights that they became")
    assert len({0, seed_after(0, first), seed_after(0, second), seed_after(1, second)}) == 4
    assert seed_after(0, first) == seed_after(0, first)


@torch.no_grad()
def test_a_network_without_the_texts_embedding_goes_on_where_it_was(tmp_path: Path) -> None:
    before = UNet(replace(CONFIG, addition_embed_type=None, addition_embed_type_num_heads=64)).eval()
    save_module(tmp_path, before, "UNet2DConditionModel", dtype=torch.float32)
    after = new_unet(DenoiserRecipe(init=str(tmp_path))).eval()
    given = torch.randn(2, 8, 4, 4), torch.tensor([20.0, 900.0]), torch.randn(2, 7, 256)
    assert torch.allclose(before(*given), after(*given), atol=1e-5)
    torch.nn.init.ones_(after.get_submodule("add_embedding.norm2").weight)
    assert not torch.allclose(before(*given), after(*given), atol=1e-2)


def test_a_network_of_another_shape_is_refused(tmp_path: Path) -> None:
    other = UNet(replace(CONFIG, norm_num_groups=16))
    save_module(tmp_path, other, "UNet2DConditionModel")
    with pytest.raises(FromnoiseError, match="another shape"):
        new_unet(DenoiserRecipe(init=str(tmp_path)))
