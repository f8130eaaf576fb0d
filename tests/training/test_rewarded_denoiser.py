from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fromnoise.checkpoints.folder import read_tensors
from fromnoise.data import load_dataset
from fromnoise.models.judge import root
from fromnoise.pipeline import load
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.training import autoencoder, denoiser, judge, rewarded_denoiser, rewards
from fromnoise.training.denoiser import DenoiserTask, new_unet, read_parts
from fromnoise.training.judging import Trained, load_judge
from fromnoise.training.order import draws
from fromnoise.training.recipe import write_recipe
from fromnoise.training.rewarded_denoiser import RewardedDenoiserRecipe, RewardedDenoiserTask, held_out_concepts
from fromnoise.training.rewards import Asked, Reward, Worth, commonest, even_parts, off_palette, palettes_of
from tests.small_dataset import STYLES, write_dataset
from tests.tiny import AUTOENCODER, UNET
from tests.training.test_judge import QUICK, fake_vectors

RED, BLUE = (208.0, 32.0, 32.0), (32.0, 96.0, 208.0)


def flat(colour: tuple[float, ...], side: int = 8) -> Tensor:
    """A picture (3, side, side) of one colour."""
    return (torch.tensor(colour) / 127.5 - 1)[:, None, None].expand(3, side, side).clone()


def test_a_picture_in_the_palettes_colours_lacks_nothing() -> None:
    palette = torch.tensor([RED, BLUE])
    assert float(off_palette(flat(RED), palette)) == pytest.approx(0, abs=1e-3)
    assert float(off_palette(flat((202.0, 35.0, 32.0)), palette)) == pytest.approx(3.0, abs=1e-3)  # (6 + 3 + 0) / 3


def test_neither_edges_nor_paper_are_held_beside_the_palette() -> None:
    palette = torch.tensor([RED])
    halves = torch.cat([flat(RED)[:, :, :4], flat((250.0, 250.0, 250.0))[:, :, 4:]], 2)
    even = even_parts((halves + 1) * 127.5)
    assert even[:, :3].all()
    assert not even[:, 3:].any()
    white = flat((255.0, 255.0, 255.0)).requires_grad_(True)
    (slope,) = torch.autograd.grad(off_palette(white, palette), white)
    assert float(off_palette(white, palette).detach()) == 0
    assert not slope.any()


def test_the_slope_leads_to_the_nearest_colour() -> None:
    picture, palette = flat((200.0, 40.0, 32.0)).requires_grad_(True), torch.tensor([RED, BLUE])
    (slope,) = torch.autograd.grad(off_palette(picture, palette), picture)
    with torch.no_grad():
        assert float(off_palette(picture - 0.05 * slope / slope.abs().max(), palette)) < float(
            off_palette(picture, palette)
        )


def test_the_commonest_colours_of_a_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_dataset(tmp_path)
    found = palettes_of(dataset)
    assert set(found) == set(STYLES)
    assert found["twemoji"][0].tolist() == [128.0, 128.0, 128.0]  # the grey that its stripes lie on
    rows = [row for row in dataset.indices(split="train") if dataset.pictures[row].style == "twemoji"]
    held_out = [0x10, 0x10, 0x10]
    assert held_out not in commonest(dataset.all_pixels[rows]).tolist()
    monkeypatch.setattr(rewards, "COLOURS", 1)
    assert "noto" not in palettes_of(dataset)  # its discs have six colours, and white is the commonest


def test_the_root_of_a_share_has_a_slope_everywhere() -> None:
    shares = torch.tensor([0.0, 1e-8, 0.25, 1.0], requires_grad=True)
    torch.testing.assert_close(root(shares).detach(), torch.tensor([0.0, 1e-4, 0.5, 1.0]))
    (slope,) = torch.autograd.grad(root(shares).sum(), shares)
    assert slope.isfinite().all()
    assert float(slope[2]) == pytest.approx(1.0, rel=1e-3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a dataset, and an autoencoder, a judge and a denoiser trained on it."""
    folder = tmp_path_factory.mktemp("rewarded")
    write_dataset(folder / "data")
    with pytest.MonkeyPatch.context() as patched:
        small(patched)
        for part, module, recipe in (
            ("autoencoder", autoencoder, "steps = 120\nbatch = 4\nrate = 3e-3\nwarmup = 10\naverage = 10\n"),
            ("judge", judge, QUICK),
            ("denoiser", denoiser, denoiser_fields(folder, tiny_model) + "steps = 60\nrate = 2e-3\naverages = [8]\n"),
        ):
            (folder / "recipe.toml").write_text(recipe)
            module.train(folder / "data", folder / part, folder / "recipe.toml")
    return folder


def small(patched: pytest.MonkeyPatch) -> None:
    """Networks of toy size, and a teacher that is not there."""
    patched.setattr(autoencoder, "CONFIG", replace(AUTOENCODER, sample_size=32, scaling_factor=1.0))
    patched.setattr(denoiser, "CONFIG", replace(UNET, sample_size=16))
    patched.setattr(judge, "cached_vectors", fake_vectors)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)


def denoiser_fields(folder: Path, tiny_model: Path) -> str:
    return f'text = "{tiny_model}"\nautoencoder = "{folder / "autoencoder"}"\nbatch = 4\nwarmup = 2\ncompile = false\n'


def recipe_of(made: Path, tiny_model: Path, **fields: float) -> RewardedDenoiserRecipe:
    return replace(
        RewardedDenoiserRecipe(
            judge=str(made / "judge" / "judge"),
            text=str(tiny_model),
            autoencoder=str(made / "autoencoder"),
            init=str(made / "denoiser" / "model-8" / "unet"),
            batch=4,
            real=3,
            fewest=3,
            most=4,
            answers=2,
            compile=False,
        ),
        **fields,
    )


def task_of(made: Path, tiny_model: Path, **fields: float) -> RewardedDenoiserTask:
    recipe = recipe_of(made, tiny_model, **fields)
    dataset = load_dataset(made / "data")
    parts, rows = read_parts(recipe.ordinary), dataset.indices(split="train")
    latents = denoiser.encode_pictures(parts.autoencoder, dataset, rows)
    pictures = [dataset.pictures[row] for row in rows]
    ordinary = DenoiserTask(new_unet(recipe.ordinary), parts.text, latents, pictures, recipe.ordinary)
    reward = Reward(load_judge(Path(recipe.judge)), palettes_of(dataset), Worth(1.5, 0.3, 0.3))
    return RewardedDenoiserTask(ordinary, parts.autoencoder, reward, held_out_concepts(dataset), recipe)


def judge_of(made: Path) -> Trained:
    return load_judge(made / "judge" / "judge")


def test_pictures_that_show_what_was_asked_for_lack_less(made: Path) -> None:
    dataset = load_dataset(made / "data")
    reward = Reward(judge_of(made), palettes_of(dataset), Worth(1.5, 0.3, 0.3))
    pictures = autoencoder.to_model_range(torch.from_numpy(dataset.all_pixels[:4].copy()))
    right = [Asked(each.label, each.concept, each.style) for each in dataset.pictures[:4]]
    chosen = draws(0, 0, 4, 4)
    said = reward.shortfall(pictures, right, chosen)
    other = [Asked("", right[(row + 2) % 4].concept, right[(row + 1) % 4].style) for row in range(4)]
    assert said.shape == (4,)
    assert float(reward.shortfall(pictures, other, chosen).mean()) > float(said.mean()) + 0.1
    unstyled = [replace(each, style=None) for each in right]
    assert (reward.shortfall(pictures, unstyled, chosen) < said).all()  # nothing is asked of their style


def test_the_slope_says_how_latents_come_to_lack_less(made: Path, tiny_model: Path) -> None:
    task = task_of(made, tiny_model)
    chosen = draws(0, 0, 4, len(task.ordinary.pictures))
    asked = [task.ask(each) for each in chosen]
    latents = torch.randn(4, *task.ordinary.latents.shape[2:], generator=torch.Generator().manual_seed(1))
    slope, before = task.slope(latents, asked, chosen)
    _, after = task.slope(latents - 0.1 * slope / slope.abs().max(), asked, chosen)
    assert float(after) < float(before)
    assert float(slope.flatten(1).norm(dim=1).max()) <= rewarded_denoiser.STEEPEST + 1e-6


def test_the_gradient_is_the_slope_of_the_guided_answers(made: Path, tiny_model: Path) -> None:
    task = task_of(made, tiny_model, gain=1.0)
    batch = task.batch(0)
    guided, v = task.predict(batch)
    loss = task.loss((guided, v), batch)
    (found,) = torch.autograd.grad(loss, guided)
    torch.testing.assert_close(found, batch.slope / len(batch.slope))
    lacking = float(loss.detach()) - float(batch.lack)
    assert lacking == pytest.approx(float(task.ordinary.loss(v, batch.real).detach()), abs=1e-5)
    assert len(guided) == 4 * 2
    assert len(v) == 3


def test_concepts_with_held_out_pictures_are_asked_for_in_their_own_styles_only(made: Path, tiny_model: Path) -> None:
    task = task_of(made, tiny_model, elsewhere=1.0, captions=0.0, reworded=0.0)
    chosen = draws(0, 0, 400, len(task.stand_ins))
    asked = [(task.ordinary.pictures[task.stand_ins[draw.sample]], task.ask(draw)) for draw in chosen]
    (held,) = task.held
    assert all(said.style == picture.style for picture, said in asked if picture.concept == held)
    others = [said.style != picture.style for picture, said in asked if picture.concept != held]
    assert 0.4 < sum(others) / len(others) < 0.6
    assert all(said.concept == picture.concept for picture, said in asked)


def test_styles_with_a_palette_are_asked_for_more_often(made: Path, tiny_model: Path) -> None:
    task = task_of(made, tiny_model, exact=3, captions=0.0, reworded=0.0)
    task.reward.palettes = {"twemoji": torch.zeros(1, 3)}
    task = RewardedDenoiserTask(task.ordinary, task.autoencoder, task.reward, task.held, task.recipe)
    of_it = sum(each.style == "twemoji" for each in task.ordinary.pictures)
    others = len(task.ordinary.pictures) - of_it
    assert len(task.stand_ins) == 3 * of_it + others
    asked = [task.ask(each).style for each in draws(0, 0, 40 * len(task.stand_ins), len(task.stand_ins))]
    named = [style for style in asked if style]
    assert named.count("twemoji") / len(named) == pytest.approx(3 * of_it / len(task.stand_ins), abs=0.05)


def test_what_names_no_style_is_asked_for_none(made: Path, tiny_model: Path) -> None:
    task = task_of(made, tiny_model, captions=1.0, elsewhere=0.0, reworded=0.0)
    said = [task.ask(draw) for draw in draws(0, 0, 60, len(task.stand_ins))]
    assert {each.style is None for each in said if "style" not in each.text} == {True}
    assert {each.style is None for each in said if "style" in each.text} == {False}


def test_drawings_come_to_lack_less_and_a_resumed_run_is_the_same(made: Path, tiny_model: Path, tmp_path: Path) -> None:
    weights = "model-6/unet/diffusion_pytorch_model.safetensors"

    def run(name: str, steps: int, *, resume: bool = False) -> dict[str, Tensor]:
        recipe = recipe_of(made, tiny_model, steps=steps, rate=4e-4, warmup=2, gain=1.0, reworded=0.0, decay_at=12)
        recipe = replace(recipe, averages=(6,), export_every=100)
        write_recipe(recipe, tmp_path / "recipe.toml")
        rewarded_denoiser.train(made / "data", tmp_path / name, tmp_path / "recipe.toml", resume=resume)
        return read_tensors(tmp_path / name / weights)

    whole = run("whole", 16)
    run("parts", 6)
    parts = run("parts", 16, resume=True)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)

    before, after = (lack(made, tiny_model, init) for init in (made / "denoiser/model-8", tmp_path / "whole/model-6"))
    assert after < before - 0.1
    assert load(tmp_path / "whole" / "model-6")("a cherry, noto style", seed=0, steps=3)[0].image.size == (32, 32)


def lack(made: Path, tiny_model: Path, model: Path) -> float:
    """What drawings of other noise than was trained with lack on average."""
    task = task_of(made, tiny_model, reworded=0.0, seed=99, batch=11)
    task.model.load_state_dict(read_tensors(model / "unet" / "diffusion_pytorch_model.safetensors"))
    return sum(float(task.batch(step).lack) for step in range(4)) / 4


def test_a_missing_judge_is_said_before_anything_is_written(made: Path, tiny_model: Path, tmp_path: Path) -> None:
    write_recipe(recipe_of(made, tiny_model, judge=str(tmp_path / "none")), tmp_path / "recipe.toml")
    with pytest.raises(FromnoiseError, match=r"no judge in .*fromnoise train judge"):
        rewarded_denoiser.train(made / "data", tmp_path / "run", tmp_path / "recipe.toml")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"fewest": 5, "most": 4}, "fewest is 5 and most 4"),
        ({"reworded": 0.6, "captions": 0.5}, "together at most 1"),
        ({"fewest": 1}, r"1 steps has no noise level of at most 3.5, the lowest is 14.61"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(RewardedDenoiserRecipe(), **fields)
