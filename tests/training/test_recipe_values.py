"""What the fields of recipes may say: one clear error for anything else, and 0 where it switches something off."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from fromnoise.runtime.errors import UsageError
from fromnoise.training.autoencoder import AutoencoderRecipe
from fromnoise.training.denoiser import DenoiserRecipe
from fromnoise.training.judge import JudgeRecipe
from fromnoise.training.recipe import ALLOWED, read_recipe, write_recipe
from fromnoise.training.rewarded_denoiser import RewardedDenoiserRecipe
from fromnoise.training.text_encoder import TextEncoderRecipe
from fromnoise.training.tuning.distill import DistillRecipe
from fromnoise.training.tuning.dreambooth import DreamboothRecipe
from fromnoise.training.tuning.finetune import FinetuneRecipe
from fromnoise.training.tuning.inversion import InversionRecipe
from fromnoise.training.tuning.lora import LoraRecipe

FROM_SCRATCH = (AutoencoderRecipe, TextEncoderRecipe, DenoiserRecipe, JudgeRecipe, RewardedDenoiserRecipe)
RECIPES: tuple[type, ...] = (
    InversionRecipe,
    LoraRecipe,
    FinetuneRecipe,
    DreamboothRecipe,
    DistillRecipe,
    *FROM_SCRATCH,
)


def read(kind: type, folder: Path, text: str) -> Any:
    (folder / "r.toml").write_text(text, encoding="utf-8")
    return read_recipe(kind(), folder / "r.toml")


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (LoraRecipe, "batch = 0", "batch must be a whole number from 1 up, not 0"),
        (LoraRecipe, "batch = 2.5", "batch must be a whole number from 1 up, not 2.5"),
        (LoraRecipe, "batch = true", "batch must be a whole number from 1 up, not True"),
        (LoraRecipe, "flip = 1", "flip must be true or false, not 1"),
        (LoraRecipe, 'layout = "foo"', "layout must be one of kohya, peft, not 'foo'"),
        (LoraRecipe, "rank = 0", "rank must be a whole number from 1 up, not 0"),
        (LoraRecipe, "model = 3", "model must be text that says something, not 3"),
        (LoraRecipe, "dropout = 2.0", "dropout must be a number from 0 to 0.9, not 2.0"),
        (LoraRecipe, "check_every = 0", "check_every must be a whole number from 1 up, not 0"),
        (LoraRecipe, "patience = 0", "patience must be a whole number from 1 up, not 0"),
        (LoraRecipe, "steps = 0", "steps must be a whole number from 1 up, not 0"),
        (LoraRecipe, "empty = 7.0", "empty must be a number from 0 to 1, not 7.0"),
        (LoraRecipe, "minutes = -1", "minutes must be a number from 0 up, not -1"),
        (LoraRecipe, "sample_every = -1", "sample_every must be a whole number from 0 up, not -1"),
        (LoraRecipe, "rate = 0", "rate must be a number above 0, not 0"),
        (LoraRecipe, "rate = nan", "rate must be a number above 0, not nan"),
        (LoraRecipe, "rate = inf", "rate must be a number above 0, not inf"),
        (LoraRecipe, 'caption = " "', "caption must be text that says something, not ' '"),
        (InversionRecipe, "vectors = 99", "vectors must be a whole number from 1 to 32, not 99"),
        (DreamboothRecipe, "prior = -4.0", "prior must be a number from 0 up, not -4.0"),
        (FinetuneRecipe, "gamma = -3.0", "gamma must be a number from 0 up, not -3.0"),
        (DistillRecipe, 'sampler = "foo"', "sampler must be one of euler, euler-a"),
        (DistillRecipe, "gain = 0.0", "gain must be a number above 0, not 0.0"),
        (DenoiserRecipe, "averages = [400, 0]", r"averages must be a list of whole numbers from 1 up, not \[400, 0\]"),
        (DenoiserRecipe, 'averages = ["x"]', r"averages must be a list of whole numbers from 1 up, not \['x'\]"),
        (DenoiserRecipe, "averages = 400", "averages must be a list of whole numbers from 1 up, not 400"),
        (DenoiserRecipe, "export_every = 0", "export_every must be a whole number from 1 up, not 0"),
        (DenoiserRecipe, "noisy_from = 1000", "noisy_from must be a whole number from 0 to 999, not 1000"),
        (DenoiserRecipe, "seed = -1", "seed must be a whole number from 0 to 18446744073709551615, not -1"),
        (JudgeRecipe, "sides = []", r"sides must be a list of whole numbers, multiples of 16 from 16 up, not \[\]"),
        (JudgeRecipe, 'architecture = "foo"', "architecture must be one of residual, patches, not 'foo'"),
        (JudgeRecipe, 'decay_at = "x"', "decay_at must be a whole number from 0 up, not 'x'"),
        (TextEncoderRecipe, "temperature = 0.0", "temperature must be a number above 0, not 0.0"),
        (AutoencoderRecipe, 'init = ""', "init must be text that says something, not ''"),
        (DenoiserRecipe, 'text = ""', "text must be text that says something, not ''"),
        (TextEncoderRecipe, "held = 1", "held must be a whole number from 2 up, not 1"),
        (JudgeRecipe, "shades = 1", "shades must be a whole number from 2 up, not 1"),
        (JudgeRecipe, "sides = [7]", r"sides must be a list of whole numbers, multiples of 16 from 16 up, not \[7\]"),
        (AutoencoderRecipe, "init = 3", "init must be text that says something, not 3"),
        (RewardedDenoiserRecipe, "exact = 0", "exact must be a whole number from 1 up, not 0"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(tmp_path: Path, kind: type, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"r\.toml: {words}"):
        read(kind, tmp_path, text)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (JudgeRecipe, "sides = [32, 64]", r"growth .* \[0, 1500, 2100\] is not that of sides \[32, 64\]"),
        (JudgeRecipe, "growth = [5, 6, 7]", r"0 first, then more; \[5, 6, 7\] is not that of sides \[32, 48, 64\]"),
        (JudgeRecipe, "growth = [0, 7, 6]", "0 first, then more"),
        (JudgeRecipe, "batch = 1", "batch and plain must be 2 or more"),
        (JudgeRecipe, "plain = 1", "batch and plain must be 2 or more"),
        (TextEncoderRecipe, "heads = 3\nwidth = 32", "3 heads don't share 32 evenly"),
        (TextEncoderRecipe, "width = 512", "width is 512, but words start from the teacher's vectors of 384"),
        (AutoencoderRecipe, "anchor = 5.0", "`anchor` holds latents to those of `init`"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(tmp_path: Path, kind: type, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"r\.toml: .*{words}"):
        read(kind, tmp_path, text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (FinetuneRecipe, "average = 0\ngamma = 0\nsample_every = 0\nmost_drift = 0\nempty = 0\nsample_steps = 0"),
        (LoraRecipe, "alpha = 0\nkeep = 0\nkeep_weight = 0\nwarmup = 0\ndropout = 0\nminutes = 0"),
        (LoraRecipe, 'caption = ""\ntoken = ""\ninit = ""'),
        (DistillRecipe, "guidance = 0"),
        (DreamboothRecipe, "rate = 0.0\nclass_pictures = 0\nprior = 0"),
        (AutoencoderRecipe, "anchor = 0\nvaried = 0\naverage = 0\ndecay_at = 0"),
    ],
)
def test_nothing_is_a_value_where_it_switches_something_off(tmp_path: Path, kind: type, text: str) -> None:
    made = read(kind, tmp_path, text)
    assert not any(getattr(made, line.split(" = ")[0]) for line in text.splitlines())


@pytest.mark.parametrize("kind", RECIPES)
def test_defaults_are_allowed(tmp_path: Path, kind: type) -> None:
    write_recipe(kind(), tmp_path / "recipe.toml")
    assert read_recipe(kind(), tmp_path / "recipe.toml") == kind()


def test_any_words_are_read_back(tmp_path: Path) -> None:
    said = replace(LoraRecipe(), caption="ein Kürbis 🎃", most_drift=1.0)
    write_recipe(said, tmp_path / "recipe.toml")
    assert read_recipe(LoraRecipe(), tmp_path / "recipe.toml") == said


def test_every_number_of_every_recipe_has_a_rule() -> None:
    """And a rule that no recipe has a field for is misspelt."""
    known = {field.name: kind for kind in RECIPES for field in fields(kind)}
    numbers = {
        name
        for name, kind in known.items()
        if get_type_hints(kind)[name] in (int, float, int | None, float | None, tuple[int, ...])
    }
    assert numbers - ALLOWED.keys() == set()
    assert ALLOWED.keys() - known.keys() == set()
