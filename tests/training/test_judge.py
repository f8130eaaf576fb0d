from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.data import Dataset
from fromnoise.models.judge import ENCODERS, Judge, JudgeConfig, merged, palette
from fromnoise.training import judge
from fromnoise.training.judge import JudgeRecipe, JudgeTask, concepts_of, evened, new_judge, wordings
from fromnoise.training.judging import load_judge
from tests.small_dataset import STYLES, write_dataset

QUICK = """
width = 8
sides = [16]
growth = [0]
steps = 80
batch = 11
plain = 11
rate = 5e-3
warmup = 5
decay_at = 40
"""


def fake_vectors(texts: Sequence[str], folder: Path) -> Tensor:
    """A random unit vector of each text."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
    return F.normalize(torch.stack([torch.randn(16, generator=torch.Generator().manual_seed(each)) for each in seeds]))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def task(shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JudgeTask:
    monkeypatch.setattr(judge, "cached_vectors", fake_vectors)
    recipe = replace(JudgeRecipe(), width=8, sides=(16, 32), growth=(0, 5), steps=10, batch=8, plain=5)
    concepts = concepts_of(shapes, tmp_path, recipe.evenness)
    return JudgeTask(new_judge(recipe, concepts, STYLES), shapes, concepts, recipe)


def test_wordings_say_nothing_of_the_style(shapes: Dataset) -> None:
    assert wordings(shapes.pictures[:2]) == ["cherry", "a cherry"]


def test_pictures_of_the_test_fold_are_never_shown(task: JudgeTask, shapes: Dataset) -> None:
    assert len(task.pictures) == len(shapes) - 1
    sun = task.concepts.clusters.index("sun")
    assert [STYLES[style] for style in task.styles[task.clusters == sun]] == ["twemoji"]


def test_a_batch_depends_on_its_step_alone(task: JudgeTask) -> None:
    first, again, other = task.batch(3), task.batch(3), task.batch(4)
    assert torch.equal(first.pictures, again.pictures)
    assert torch.equal(first.plain, again.plain)
    assert torch.equal(first.wordings, again.wordings)
    assert not torch.equal(first.pictures, other.pictures)
    assert not torch.equal(first.wordings, other.wordings)


def test_pictures_grow_with_the_run(task: JudgeTask) -> None:
    assert [task.batch(step).pictures.shape[2] for step in (0, 4, 5, 9)] == [16, 16, 32, 32]


def test_the_first_pictures_of_a_batch_teach_the_style_in_views_that_keep_it(task: JudgeTask) -> None:
    batch = task.batch(0)
    reading = task.predict(batch)
    assert batch.plain.shape == (5, 3, 32, 32)
    assert (len(reading.styles), len(batch.styles), len(reading.clusters)) == (5, 5, 8)
    reading.styles.sum().backward()
    touched = {name.split(".")[0] for name, each in task.model.named_parameters() if each.grad is not None}
    assert touched == {"strokes", "style_head"}


def test_a_run_goes_on_from_the_judge_that_its_recipe_names(shapes: Dataset, task: JudgeTask, tmp_path: Path) -> None:
    judge.save_judge(tmp_path / "before", task.model, task.concepts)
    recipe = replace(task.recipe, init=str(tmp_path / "before"))
    model = new_judge(recipe, task.concepts, STYLES)
    assert torch.allclose(model.text_head.weight, task.model.text_head.weight, atol=1e-3)


def test_a_palette_holds_the_root_of_each_colours_share_and_leaves_out_the_paper() -> None:
    picture = torch.ones(1, 3, 4, 4)
    picture[:, 1:, :2] = -1
    picture[:, :, 2, :2] = -1
    red, black = 2 * 9, 0
    found = palette(picture, 3)[0]
    assert found.nonzero().flatten().tolist() == [black, red]
    assert found[[red, black]].square().tolist() == pytest.approx([0.8, 0.2])
    between = palette(torch.full((1, 3, 2, 2), -0.75), 3)[0].square()
    assert float(between[0]) == pytest.approx(0.75**3)
    assert float(between.sum()) == pytest.approx(1)


def test_clusters_gather_what_their_concepts_are_likely_to_be() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 5
    members = F.one_hot(torch.tensor([0, 1, 0, 2])).float()
    expected = torch.stack([logits[:, [0, 2]].logsumexp(1), logits[:, 1], logits[:, 3]], 1)
    assert torch.allclose(merged(logits, members), expected, atol=1e-4)


def test_evened_vectors_are_spread_in_every_direction() -> None:
    spread = torch.tensor([8.0, 2.0, 1.0, 0.5])
    vectors = F.normalize(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * spread + 3)
    plain, even = evened(vectors, 0.0), evened(vectors, 1.0)
    assert torch.allclose(even.norm(dim=1), torch.ones(500), atol=1e-5)
    ranges = [torch.linalg.svdvals(each - each.mean(0)) for each in (plain, even)]
    assert float(ranges[1][0] / ranges[1][-1]) < 2 < float(ranges[0][0] / ranges[0][-1])


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_judge_learns_to_tell_shapes_apart(
    architecture: str, shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "cached_vectors", fake_vectors)
    (tmp_path / "quick.toml").write_text(f'architecture = "{architecture}"\n{QUICK}')
    judge.train(shapes.folder, tmp_path / "run", tmp_path / "quick.toml")
    trained = load_judge(tmp_path / "run" / "judge")
    rows = shapes.indices(judge_fold="train")
    asked = [shapes.pictures[row] for row in rows]
    reading = trained.read(torch.from_numpy(shapes.pixels(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1)
    found = trained.verdicts(reading, [each.concept for each in asked], [each.style for each in asked])
    assert float(found.top1.float().mean()) > 0.6
    assert float(found.style.float().mean()) > 0.8
    assert float(found.score.mean()) > 0.1


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_judge_reads_pictures_at_the_sides_it_grows_through(architecture: str) -> None:
    model = Judge(JudgeConfig(architecture=architecture, width=8, side=64, clusters=5, styles=("a", "b"))).eval()
    for side in (32, 48, 64):
        reading = model(torch.zeros(2, 3, side, side))
        assert reading.features.shape == (2, model.encoder.channels)
        assert reading.embedding.shape == (2, 384)
        assert (reading.clusters.shape, reading.styles.shape) == ((2, 5), (2, 2))
