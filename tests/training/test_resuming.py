"""What a resumed run may change, what it can't, and that nothing is written before that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fromnoise.checkpoints.folder import read_tensors, save_module
from fromnoise.runtime.errors import UsageError
from fromnoise.training import autoencoder, denoiser, text_encoder
from fromnoise.training.recipe import read_recipe
from fromnoise.training.text_encoder import train_text_encoder
from fromnoise.training.tuning.lora import LoraRecipe
from fromnoise.training.tuning.running import begin
from tests.small_dataset import record, write_dataset
from tests.tiny import AUTOENCODER, UNET
from tests.training.test_text_encoder import RECIPE, Words

TOY = "steps = 2\nbatch = 4\nwarmup = 1\naverage = 10\n"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "CONFIG", replace(AUTOENCODER, sample_size=32, scaling_factor=1.0))
    monkeypatch.setattr(denoiser, "CONFIG", replace(UNET, sample_size=16))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run of two steps."""
    write_dataset(tmp_path / "data")
    train(tmp_path, TOY)
    return tmp_path / "run"


def train(folder: Path, recipe: str | None, *, data: str = "data", run: str = "run", resume: bool = False) -> None:
    if recipe is not None:
        (folder / "recipe.toml").write_text(recipe)
    autoencoder.train(folder / data, folder / run, None if recipe is None else folder / "recipe.toml", resume=resume)


def steps(run: Path) -> int:
    return torch.load(run / "checkpoint.pt", weights_only=True)["step"]


def written(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def other_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_call_it_otherwise(number: int, *rest: object) -> object:
        return replace(record(number, *rest), captions=("a thing",))  # type: ignore[arg-type]

    monkeypatch.setattr("tests.small_dataset.record", first_call_it_otherwise)
    write_dataset(folder)


def test_a_resumed_run_has_its_own_recipe(begun: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read_recipe(autoencoder.AutoencoderRecipe(), begun / "recipe.toml")
    with caplog.at_level("INFO", "fromnoise"):
        train(tmp_path, None, resume=True)
        assert read_recipe(autoencoder.AutoencoderRecipe(), begun / "recipe.toml") == before
        assert "other settings" not in caplog.text
        train(tmp_path, "steps = 3\nrate = 1e-4\n", resume=True)
    assert steps(begun) == 3
    assert f"{begun} goes on with other settings: steps 2 → 3, rate 0.0005 → 0.0001" in caplog.text
    assert read_recipe(autoencoder.AutoencoderRecipe(), begun / "recipe.toml") == replace(before, steps=3, rate=1e-4)


@pytest.mark.parametrize("change", ["seed = 3", "freeze_encoder = true"])
def test_what_a_checkpoint_depends_on_stays_as_it_was(begun: Path, tmp_path: Path, change: str) -> None:
    before, name = written(begun), change.split(" ")[0]
    with pytest.raises(UsageError, match=f"was started with {name} .* which can't become .*; leave it as it was"):
        train(tmp_path, f"steps = 9\n{change}\n", resume=True)
    assert written(begun) == before


def test_another_dataset_is_refused(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(begun)
    other_dataset(tmp_path / "other", monkeypatch)
    with pytest.raises(UsageError, match="was started with another dataset; give that one, or another --run"):
        train(tmp_path, TOY, data="other", resume=True)
    assert written(begun) == before


def test_nothing_is_written_without_a_dataset(begun: Path, tmp_path: Path) -> None:
    before = written(begun)
    for run in ("run", "fresh"):
        with pytest.raises(UsageError, match="no dataset in"):
            train(tmp_path, "steps = 9\n", data="nowhere", run=run)
    assert written(begun) == before and not (tmp_path / "fresh").exists()


def test_a_run_from_before_datasets_were_noted_goes_on(
    begun: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (begun / "dataset.json").unlink()
    with caplog.at_level("INFO", "fromnoise"):
        train(tmp_path, "steps = 4\n", resume=True)
    assert steps(begun) == 4 and (begun / "dataset.json").exists()
    assert "doesn't say which dataset it was started with" in caplog.text


def test_there_has_to_be_a_run_to_go_on_from(begun: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match=r"there is no run in .*fresh to go on from; leave out --resume to start one"):
        train(tmp_path, TOY, run="fresh", resume=True)
    with pytest.raises(UsageError, match="there is no run in"):
        begin(tmp_path / "fresh", LoraRecipe(), resume=True)
    assert not (tmp_path / "fresh").exists()
    (begun / "checkpoint.pt").unlink()
    with caplog.at_level("INFO", "fromnoise"):
        train(tmp_path, None, resume=True)
    assert "has no checkpoint yet; starting with the first step" in caplog.text and steps(begun) == 2


def test_a_step_takes_no_more_pictures_than_there_are(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    with pytest.raises(UsageError, match="batch is 100000000, and there are 11 to learn from; give at most as many"):
        train(tmp_path, "batch = 100000000\n")
    recipe = replace(RECIPE, phrases=100000000)
    with pytest.raises(UsageError, match="phrases is 100000000, and there are"):
        train_text_encoder(tmp_path / "data", tmp_path / "text", recipe, teach=Words(), keep_out=())


def test_a_run_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match=r"can't write in .*run: .*; choose another folder"):
        train(tmp_path, TOY)


def test_a_run_that_starts_afresh_has_a_tokenizer_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "data")
    how = {"teach": Words(), "keep_out": ()}

    def vocabulary(size: int) -> int:
        recipe = replace(RECIPE, vocabulary=size, steps=1)
        train_text_encoder(tmp_path / "data", tmp_path / "run", recipe, **how)  # type: ignore[arg-type]
        return len(text_encoder.Tokenizer.read(tmp_path / "run" / "tokenizer").vocabulary)

    assert (vocabulary(530), vocabulary(520)) == (530, 520)
    for name in ("merges.txt", "tokenizer_config.json"):
        (tmp_path / "run" / "tokenizer" / name).unlink()
    assert vocabulary(520) == 520
    recipe = replace(RECIPE, vocabulary=530)
    with pytest.raises(UsageError, match="vocabulary 520, which can't become 530"):
        train_text_encoder(tmp_path / "data", tmp_path / "run", recipe, resume=True, **how)  # type: ignore[arg-type]


def test_an_export_has_the_parts_that_the_network_learns_with(tmp_path: Path, tiny_model: Path) -> None:
    write_dataset(tmp_path / "data")
    for name in ("first", "second"):
        vae = autoencoder.new_autoencoder(autoencoder.AutoencoderRecipe())
        save_module(tmp_path / name / "vae", vae, "AutoencoderKL")
    recipe = f'text = "{tiny_model}"\nsteps = 1\nbatch = 2\naverages = [8]\ncompile = false\n'
    for name, resume in (("first", False), ("second", True)):
        (tmp_path / "d.toml").write_text(f'{recipe}autoencoder = "{tmp_path / name}"\n')
        denoiser.train(tmp_path / "data", tmp_path / "run", tmp_path / "d.toml", resume=resume)
        mine, theirs = (
            each / "vae" / denoiser.DIFFUSERS_WEIGHTS for each in (tmp_path / "run" / "model-8", tmp_path / name)
        )
        one, other = read_tensors(mine), read_tensors(theirs)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_parts_that_do_not_fit_the_network_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    recipe = denoiser.DenoiserRecipe(autoencoder=str(tiny_model))
    with pytest.raises(UsageError, match=r"text: .*model has a width of 256, not the denoiser's"):
        denoiser.read_parts(recipe)
    recipe = denoiser.DenoiserRecipe(text=str(tiny_model))
    with pytest.raises(UsageError, match=r"autoencoder: .*model has 8 channels, not the denoiser's 4"):
        denoiser.read_parts(recipe)
