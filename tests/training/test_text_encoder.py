from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from fromnoise.checkpoints.folder import load_module, read_json
from fromnoise.data import Dataset, load_dataset
from fromnoise.data.records import WORDS
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.text import Tokenizer
from fromnoise.training import lessons, text_encoder
from fromnoise.training.anchors import padding_means
from fromnoise.training.learner import Learner
from fromnoise.training.lessons import choose_texts, is_plain, prepare
from fromnoise.training.optimizers import adamw
from fromnoise.training.phrases import compounds, explanations, in_wider_company
from fromnoise.training.text_encoder import (
    Student,
    TextEncoderRecipe,
    TextEncoderTask,
    anchor_of,
    concept_divergence,
    contrastive,
    row_divergence,
    teach_pieces,
    text_config,
    train_text_encoder,
)
from fromnoise.training.vocabulary import learn_vocabulary
from tests.small_dataset import write_dataset

RECIPE = TextEncoderRecipe(
    vocabulary=600,
    positions=16,
    width=16,
    layers=1,
    heads=2,
    steps=6,
    pictures=4,
    phrases=4,
    near=-1.0,
    warmup=2,
    stride=1,
)
DICTIONARY = [
    {"lexname": "food", "lemmas": ["cherry", "Bing"], "gloss": 'a red fruit with a single hard stone; "ripe cherries"'},
    {"lexname": "plant", "lemmas": ["genus Prunus"], "gloss": "trees and shrubs"},
    {"lexname": "cognition", "lemmas": ["quantum"], "gloss": "a discrete amount of something"},
    {"lexname": "food", "lemmas": ["lime", "green citrus"], "gloss": "a sour green fruit"},
]


class Words:
    """A teacher whose vector of a text is the mean of its words' random ones."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([F.normalize(sum(map(self._word, text.split() or [""])), dim=0) for text in texts]).half()

    def words(self) -> list[str]:
        return ["oinking", "sour"]

    def _word(self, word: str) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(word.strip(",").encode()).digest()[:4], "big")
        return torch.randn(384, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("shapes")
    write_dataset(folder)
    (folder / WORDS).write_text("".join(json.dumps(each) + "\n" for each in DICTIONARY))
    return load_dataset(folder)


def chosen(shapes: Dataset, **changes: object) -> tuple[str, ...]:
    settings: dict[str, Any] = {"keep_out": (), "near": -1.0, "far": 0.0, "stride": 1, "seed": 0, **changes}
    return choose_texts(shapes, Words(), **settings).texts


def test_dictionary_words_join_the_captions(shapes: Dataset) -> None:
    texts = chosen(shapes)
    assert {"a cherry", "cherry, a red fruit with a single hard stone", "quantum", "oinking"} <= set(texts)
    assert {"lime, green citrus", "green citrus, a sour green fruit"} <= set(texts)
    assert not any("prunus" in text or "bing" in text for text in texts)
    assert len(texts) == len(set(texts))


def test_held_out_prompts_are_never_learnt(shapes: Dataset) -> None:
    assert "green citrus" not in chosen(shapes, keep_out=["Green  citrus"])


def test_captions_of_held_out_pictures_are_never_learnt(shapes: Dataset) -> None:
    texts = chosen(shapes)
    assert "a ink, noto style" in texts
    assert "a ink, twemoji style" not in texts


def test_texts_far_from_all_concepts_are_left_out_but_for_a_share_and_single_words(shapes: Dataset) -> None:
    few, all_of_them = set(chosen(shapes, near=0.9)), set(chosen(shapes, near=0.9, far=1.0))
    assert few < all_of_them
    assert all(" " in text for text in all_of_them - few)
    assert "quantum" in few
    assert "a cherry" in chosen(shapes, near=2.0)


def test_words_around_a_concept_keep_company(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "LEAST", -1.0)
    words = {"cherry", "lime", "oinking", "sour", "quantum"}
    together = [each for each in chosen(shapes) if len(words & set(each.replace(",", "").split())) > 2]
    assert len(together) > 5


def test_compounds_need_four_words_and_use_only_theirs() -> None:
    made = compounds([["a", "b", "c"], ["zebra", "stripes", "savanna", "foal"]], 50)
    assert made == compounds([["zebra", "stripes", "savanna", "foal"]], 50)
    assert len(made) > 25
    said = {word.strip(",") for text in made for word in text.split()}
    assert said <= {"zebra", "stripes", "savanna", "foal", "a", "with", "of", "and", "in", "for"}
    assert {"zebra", "stripes", "savanna", "foal"} <= said


def test_wider_company_holds_a_word_of_the_meaning_and_one_that_is_not() -> None:
    near, further = ["zebra", "foal"], ["engine", "tax", "cobalt"]
    made = in_wider_company([(near, further), (["alone"], further), (near, ["one"])], 60)
    assert made == in_wider_company([(near, further)], 60)
    assert len(made) > 25
    said = [set(text.split()) for text in made]
    assert all(words & set(near) and words & set(further) for words in said)
    assert not set().union(*said) & {"alone", "one"}


def test_words_further_from_a_concept_surround_those_near_it(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "LEAST", 0.0)
    monkeypatch.setattr(lessons, "AMONG", 0)
    before = set(chosen(shapes))
    monkeypatch.setattr(lessons, "AMONG", 50)
    assert set(chosen(shapes)) > before


def test_things_that_can_be_seen_are_explained_without_their_names(shapes: Dataset) -> None:
    told = explanations(shapes)
    assert {"a red fruit with a single hard stone", "a sour green fruit"} <= set(told)
    assert not any("shrubs" in text or "discrete" in text for text in told)


def test_plain_captions_name_no_style() -> None:
    styled = ("cherry, twemoji style", "soft shaded cartoon cherry")
    assert is_plain("a red cherry")
    assert not any(map(is_plain, styled))


@pytest.fixture
def task(shapes: Dataset) -> TextEncoderTask:
    texts = choose_texts(shapes, Words(), (), near=-1.0, far=0.0, stride=1, seed=0)
    tokenizer = learn_vocabulary(texts.texts, RECIPE.vocabulary, RECIPE.positions)
    torch.manual_seed(0)
    return TextEncoderTask(Student(text_config(tokenizer, RECIPE)), prepare(shapes, texts, tokenizer, 1), RECIPE)


def test_a_batch_is_a_pure_function_of_the_step(task: TextEncoderTask) -> None:
    first, again, other = task.batch(3), task.batch(3), task.batch(4)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.pictures, again.pictures)
    assert not torch.equal(first.tokens, other.tokens)
    assert first.tokens.shape == (8, 16)
    assert first.pictures.shape == (4, 3, 32, 32)


def test_states_do_not_depend_on_padding_or_order(task: TextEncoderTask) -> None:
    batch = task.batch(0)
    text = task.model.text
    expected = text.sentence(batch.tokens, text(batch.tokens))
    assert torch.allclose(task.predict(batch).sentences, expected, atol=1e-5)


def test_losses_are_least_for_a_perfect_student() -> None:
    taught = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    wrong = taught.roll(1, 0).flip(1)
    assert float(row_divergence(taught, taught, 0.05)) == pytest.approx(0, abs=1e-5)
    assert row_divergence(wrong, taught, 0.05) > 0.1
    assert float(concept_divergence(taught, taught, taught[:3], 0.05)) == pytest.approx(0, abs=1e-5)
    assert concept_divergence(wrong, taught, taught[:3], 0.05) > 0.1
    scale = torch.tensor(4.0)
    assert contrastive(taught, taught, scale) < contrastive(taught, taught.roll(1, 0), scale)


def test_learning_lowers_the_loss(task: TextEncoderTask) -> None:
    learner = Learner(task, adamw(task.model.parameters()))
    learner.one_step()
    first = learner.last_loss
    for _ in range(30):
        learner.one_step()
    assert learner.last_loss < 0.8 * first


def test_pieces_start_as_the_teacher_means_them(task: TextEncoderTask) -> None:
    tokenizer = learn_vocabulary(["cherry", "lime"] * 5, 600, 16)
    model = ClipText(replace(text_config(tokenizer, RECIPE), hidden_size=384, intermediate_size=8))
    teach_pieces(model, tokenizer, Words())
    weight = model.text_model.embeddings.token_embedding.weight
    ids = [tokenizer.vocabulary[piece] for piece in ("cherry</w>", "lime</w>", "q</w>")]
    ratios = torch.pdist(weight[ids]) / torch.pdist(Words()(["cherry", "lime", "q"]).float())
    assert torch.allclose(ratios, ratios.mean(), rtol=1e-2)
    assert weight.std().item() == pytest.approx(0.05, rel=1e-3)


def test_a_run_leaves_what_transformers_loads(shapes: Dataset, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    train_text_encoder(shapes.folder, tmp_path, RECIPE, teach=Words())
    tokenizer = Tokenizer.read(tmp_path / "tokenizer")
    config = TextConfig.from_json(read_json(tmp_path / "text_encoder" / "config.json"))
    ours, _ = load_module(ClipText(config), tmp_path / "text_encoder" / "model.safetensors")
    theirs = transformers.CLIPTextModel.from_pretrained(tmp_path / "text_encoder").eval()
    tokens = tokenizer.encode(["a red cherry", ""])
    with torch.no_grad():
        states = ours(tokens)
        expected = theirs(tokens)
    assert torch.allclose(states, expected.last_hidden_state, atol=1e-5)
    assert torch.allclose(ours.sentence(tokens, states), expected.pooler_output, atol=1e-5)


def test_a_resumed_run_equals_an_uninterrupted_one(shapes: Dataset, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_text_encoder(shapes.folder, whole, RECIPE, teach=Words())
    train_text_encoder(shapes.folder, parts, replace(RECIPE, steps=3), teach=Words())
    train_text_encoder(shapes.folder, parts, RECIPE, teach=Words(), resume=True)
    one, other = (torch.load(each / "checkpoint.pt", weights_only=True) for each in (whole, parts))
    assert one["step"] == other["step"] == 6
    assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())
    files = [(each / "text_encoder" / "model.safetensors").read_bytes() for each in (whole, parts)]
    assert files[0] == files[1]


@pytest.fixture(scope="module")
def begun(shapes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    train_text_encoder(shapes.folder, folder, RECIPE, teach=Words())
    return folder


def continued(task: TextEncoderTask, shapes: Dataset, **weights: float) -> TextEncoderTask:
    """A student that has gone astray, with an anchor where it was."""
    recipe = replace(RECIPE, held=3, aligned=2, **weights)
    held = anchor_of(task.model.text, shapes, learn_vocabulary(["a"], 600, 16))
    return TextEncoderTask(task.model, task.lessons, recipe, held)


def test_a_run_that_continues_starts_where_the_other_ended(begun: Path, shapes: Dataset, tmp_path: Path) -> None:
    recipe = replace(RECIPE, init=str(begun), steps=1, rate=0.0, held=3, aligned=2)
    train_text_encoder(shapes.folder, tmp_path, recipe, teach=Words())
    one, other = (load_file(each / "text_encoder" / "model.safetensors") for each in (begun, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "tokenizer" / "vocab.json").read_bytes() == (begun / "tokenizer" / "vocab.json").read_bytes()


def test_drift_counts_only_what_moved(task: TextEncoderTask, shapes: Dataset) -> None:
    task = continued(task, shapes, hold=1.0, align=0.0)
    batch = task.batch(0)
    plain = TextEncoderTask(task.model, task.lessons, task.recipe)
    still = task.loss(task.predict(batch), batch) - plain.loss(plain.predict(batch), batch)
    assert still.item() == pytest.approx(0, abs=1e-4)
    with torch.no_grad():
        task.model.text.text_model.final_layer_norm.bias.add_(0.5)
    moved = task.loss(task.predict(batch), batch) - plain.loss(plain.predict(batch), batch)
    assert moved.item() > 0.1


def test_texts_near_a_concept_are_drawn_to_its_captions(task: TextEncoderTask, shapes: Dataset) -> None:
    task = continued(task, shapes, hold=0.0, align=1.0)
    batch, anchor = task.batch(0), task.anchor
    assert anchor is not None
    others = slice(RECIPE.pictures, RECIPE.pictures + 2)
    batch.vectors[others], batch.plain[others] = task.lessons.concepts[0].to(batch.vectors), True
    own = torch.eye(len(anchor.means))
    there = float(anchor.vagueness(anchor.means, own))
    between = float(anchor.vagueness((anchor.means + anchor.means.roll(1, 0)) / 2, own))
    elsewhere = float(anchor.vagueness(anchor.means.roll(1, 0), own))
    assert there < 0.5 < between < elsewhere
    assert float(anchor.vagueness(anchor.means[:0], own[:0])) == 0
    plain = TextEncoderTask(task.model, task.lessons, task.recipe)
    before = plain.loss(plain.predict(batch), batch)
    assert task.loss(task.predict(batch), batch) > before + 0.1
    batch.plain[:] = False
    assert task.loss(task.predict(batch), batch).item() == pytest.approx(before.item(), abs=1e-4)


def test_padding_states_are_those_behind_the_end() -> None:
    tokens = torch.tensor([[0, 5, 9, 9, 9], [0, 5, 5, 5, 9]])
    states = torch.arange(10.0).view(2, 5, 1)
    assert padding_means(states, tokens, end=9).flatten().tolist() == [3.5, 9.0]


def test_the_shipped_recipe_is_about_nine_million_parameters() -> None:
    recipe = text_encoder.TextEncoderRecipe()
    config = replace(text_config(learn_vocabulary(["a"], 600, 32), recipe), vocab_size=recipe.vocabulary)
    with torch.device("meta"):
        assert sum(each.numel() for each in ClipText(config).parameters()) == pytest.approx(8.8e6, rel=0.02)
