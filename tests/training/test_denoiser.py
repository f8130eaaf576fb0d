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
from fromnoise.training.denoiser import (
    CONFIG,
    Captioned,
    DenoiserRecipe,
    DenoiserTask,
    latents_of,
    new_unet,
    read_autoencoder,
    with_said,
)
from fromnoise.training.judge import says_style
from fromnoise.training.lessons import training_pictures
from fromnoise.training.order import draws, seed_after
from fromnoise.training.variants import EACH, Variants, make_variants, variants_of
from tests.small_dataset import write_dataset


class Silent:
    """A text encoder that says nothing."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), 1, CONFIG.cross_attention_dim)


def a_task(folder: Path, recipe: DenoiserRecipe, variants: Variants | None = None) -> DenoiserTask:
    """Latents are 0, those of mirrored pictures 1."""
    pictures = training_pictures(load_dataset(folder))
    with torch.device("meta"):
        network = UNet(CONFIG)
    latents = torch.tensor([0.0, 1.0])[:, None, None, None].expand(len(pictures), 2, CONFIG.in_channels, 2, 2)
    recipe = replace(recipe, compile=False)
    return DenoiserTask(network, cast(TextEncoder, Silent()), latents, pictures, recipe, variants=variants)


def first_batch(folder: Path, power: float) -> Captioned:
    return a_task(folder, DenoiserRecipe(power=power)).batch(0)


def test_most_pictures_are_noisier_than_where_a_recipe_begins(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    times = a_task(tmp_path, DenoiserRecipe(noisy_from=350, batch=400)).batch(0).times
    assert (times < 350).sum() == pytest.approx(0.15 * 400, abs=12)
    assert times.min() < 10 and times.max() > 990
    for low, high in ((0, 350), (350, 1000)):
        within = times[(times >= low) & (times < high)].double()
        assert within.mean() == pytest.approx((low + high) / 2, rel=0.1)
    even = a_task(tmp_path, DenoiserRecipe(batch=400)).batch(0).times
    assert (even < 350).sum() == pytest.approx(0.35 * 400, abs=12)


def test_pictures_are_mirrored_only_where_a_recipe_wants_them(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    for mirror in (True, False):
        task = a_task(tmp_path, DenoiserRecipe(mirror=mirror))
        flips = [bool(task.sample(draw)[0].any()) for draw in draws(0, 0, 100, len(task.pictures))]
        assert any(flips) == mirror and not all(flips)


def test_a_share_is_asked_for_by_label_and_style(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    shares: list[float] = []
    for labelled in (0.0, 0.5, 1.0):
        task = a_task(tmp_path, DenoiserRecipe(labelled=labelled))
        made = [(task.pictures[draw.sample], task.sample(draw)[2]) for draw in draws(0, 0, 300, len(task.pictures))]
        said = [picture.label in text and says_style(picture, text) for picture, text in made if text]
        assert len(said) < 300
        shares.append(sum(said) / len(said))
    few, some, every = shares
    assert every == 1.0 and some == pytest.approx((few + every) / 2, abs=0.1)


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
    recipe.write_text(f"init = {json.dumps(str(EMBEDDED_MODEL / 'unet'))}\ncompile = false\nbatch = 4\n")
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
def test_a_fresh_network_starts_from_the_identity() -> None:
    model = new_unet(DenoiserRecipe()).eval()
    attention, features = model.get_submodule("mid_block.attentions.0"), torch.randn(1, 320, 4, 4)
    assert torch.equal(attention(features, torch.randn(1, 7, 256)), features)
    assert not model(torch.randn(1, 8, 4, 4), torch.tensor([20.0]), torch.randn(1, 7, 256)).any()


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


def test_variants_are_drawn_with_their_words_and_only_where_there_are_words(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    count = len(training_pictures(load_dataset(tmp_path)))
    variants = Variants(torch.ones(count, EACH, CONFIG.in_channels, 2, 2), [["pixel art"] * EACH] * count)
    task = a_task(tmp_path, DenoiserRecipe(varied=0.5, empty=0.3, mirror=False), variants)
    made = [task.sample(draw) for draw in draws(0, 0, 200, count)]
    varied = [caption for latents, _, caption in made if latents.any()]
    assert 40 < len(varied) < 100 and all(caption.endswith(", pixel art") for caption in varied)
    assert not any("pixel art" in caption for latents, _, caption in made if not latents.any())
    assert sum(caption == "" for _, _, caption in made) > 30


def test_what_is_said_of_a_variant_is_never_cut(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    cherry = training_pictures(load_dataset(tmp_path))[0]
    assert with_said("a cherry", "", cherry) == "a cherry"
    assert with_said("a cherry", "pixel art", cherry) == "a cherry, pixel art"
    gloss = "a red fruit with a single hard stone that grows in pairs on long stalks in summer"
    assert with_said(gloss, "on a black background", cherry) == "a cherry, on a black background"


def test_variants_are_kept_between_runs(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    dataset, autoencoder = load_dataset(tmp_path), read_autoencoder(EMBEDDED_MODEL)
    made, kept = (
        make_variants(autoencoder, dataset, [0, 1]),
        variants_of(autoencoder, dataset, [0, 1], tmp_path / "v.pt"),
    )
    written = (tmp_path / "v.pt").read_bytes()
    again = variants_of(autoencoder, dataset, [0, 1], tmp_path / "v.pt")
    assert (tmp_path / "v.pt").read_bytes() == written
    assert torch.equal(made.latents, kept.latents) and torch.equal(kept.latents, again.latents)
    assert made.said == again.said and made.latents.shape[:2] == (2, EACH)
    assert not torch.equal(made.latents[0, 0], made.latents[0, 1])


def test_latents_of_other_pictures_or_another_autoencoder_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(tmp_path)
    dataset, autoencoder = load_dataset(tmp_path), read_autoencoder(EMBEDDED_MODEL).requires_grad_(False)
    cache = tmp_path / "l.pt"
    first = latents_of(autoencoder, dataset, [0, 1], cache)
    with caplog.at_level("INFO", "fromnoise"):
        others = latents_of(autoencoder, dataset, [1, 0], cache)
        assert torch.equal(first.flip(0), others)
        autoencoder.encoder.conv_in.weight.mul_(2)
        changed = latents_of(autoencoder, dataset, [1, 0], cache)
        assert not torch.equal(others, changed)
        torch.save(changed + 1, cache)  # as it was kept once, with no word on what it is of
        assert torch.equal(changed, latents_of(autoencoder, dataset, [1, 0], cache))
        assert caplog.text.count("of other pictures or another autoencoder; it is made again") == 3
        cache.write_bytes(cache.read_bytes()[:-1000])
        assert torch.equal(changed, latents_of(autoencoder, dataset, [1, 0], cache))
        assert "l.pt is damaged; it is made again" in caplog.text
