from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fromnoise.data import Dataset, load_dataset
from fromnoise.data.records import WORDS
from fromnoise.models.unet import UNet
from fromnoise.text import TextEncoder
from fromnoise.training import rewordings as subject
from fromnoise.training.denoiser import CONFIG, DenoiserRecipe, DenoiserTask
from fromnoise.training.lessons import is_plain, training_pictures
from fromnoise.training.order import draws
from tests.small_dataset import write_dataset
from tests.training.test_text_encoder import DICTIONARY, Words


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("shapes")
    write_dataset(folder)
    (folder / WORDS).write_text("".join(json.dumps(each) + "\n" for each in DICTIONARY))
    return load_dataset(folder)


def found(shapes: Dataset, monkeypatch: pytest.MonkeyPatch, *reserved: str) -> dict[str, tuple[str, ...]]:
    monkeypatch.setattr(subject, "NEAR", -1.0)
    monkeypatch.setattr(subject, "reserved_words", lambda: frozenset(reserved))
    return subject.rewordings(shapes, Words())


def test_dictionary_texts_are_shared_out_among_the_concepts(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    by_concept = found(shapes, monkeypatch)
    texts = [text for some in by_concept.values() for text in some]
    captions = {caption for picture in training_pictures(shapes) for caption in picture.captions[::2]}
    assert {"oinking", "a cherry"} <= set(texts)
    assert len(texts) == len(set(texts))
    assert not captions & set(texts)
    assert set(by_concept) <= {picture.concept for picture in training_pictures(shapes)}
    assert all(map(is_plain, texts))


def test_reserved_words_stay_unseen(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for some in found(shapes, monkeypatch, "cherry").values() for text in some]
    assert texts
    assert not any("cherry" in text for text in texts)


def captions_drawn(shapes: Dataset, share: float) -> list[str]:
    """What the first thousand draws ask for, where every concept is also called a sour thing."""
    pictures = training_pictures(shapes)
    others = {picture.concept: ("a sour thing",) for picture in pictures}
    recipe = replace(DenoiserRecipe(), reworded=share, compile=False, empty=0.0)
    with torch.device("meta"):
        network = UNet(CONFIG)
    text: TextEncoder = None  # pyright: ignore[reportAssignmentType]
    task = DenoiserTask(network, text, torch.zeros(len(pictures), 2, 1, 1, 1), pictures, recipe, others)
    return [task.sample(draw)[2] for draw in draws(0, 0, 1000, len(pictures))]


def test_a_share_of_the_draws_is_reworded_and_a_third_of_it_plain(shapes: Dataset) -> None:
    said = [caption for caption in captions_drawn(shapes, 0.4) if "sour thing" in caption]
    assert len(said) == pytest.approx(400, abs=60)
    assert sum(map(is_plain, said)) == pytest.approx(133, abs=40)
    assert not any("sour thing" in caption for caption in captions_drawn(shapes, 0.0))
