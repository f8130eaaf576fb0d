from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fromnoise.data import Dataset
from fromnoise.evaluation.prompts import HELD_OUT, TRAINED, pairs
from fromnoise.evaluation.quick import QuickScore, as_line
from fromnoise.evaluation.reference import load_reference
from fromnoise.evaluation.scoring import features, score
from fromnoise.models.judge import Judge, JudgeConfig, Reading
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.training.judging import Trained, load_judge, looks, together
from tests.small_dataset import draw


def seven_concepts() -> Trained:
    """Concepts a to g, a and b in one cluster, whose vectors are the axes."""
    model = Judge(JudgeConfig(width=8, side=16, text_dim=7, clusters=6, styles=("flat", "round")))
    cluster = torch.tensor([0, 0, 1, 2, 3, 4, 5])
    return Trained(model, tuple("abcdefg"), tuple("ABCDEFG"), cluster, torch.eye(7))


def reading(clusters: list[float], style: int) -> Reading:
    embedding = torch.zeros(1, 7)
    embedding[0, 2] = 1
    return Reading(torch.zeros(1, 4), embedding, torch.tensor([clusters]), torch.eye(2)[style : style + 1])


def test_a_concept_is_found_among_the_first_guesses_and_near_identical_ones_count_as_one() -> None:
    judge = seven_concepts()
    seen = reading([150.0, 120.0, 90.0, 60.0, 30.0, 0.0], style=1)
    for concept, top1, top5 in (("a", True, True), ("b", True, True), ("d", False, True), ("g", False, False)):
        found = judge.verdicts(seen, [concept], ["round"])
        assert (bool(found.top1), bool(found.top5), bool(found.style)) == (top1, top5, True)
    assert judge.guesses(seen) in (["A"], ["B"])


def test_the_score_is_the_cosine_with_the_concepts_vector_and_no_style_is_never_right() -> None:
    judge = seven_concepts()
    seen = reading([0.0] * 6, style=0)
    assert [float(judge.verdicts(seen, [each], [None]).score) for each in "bc"] == [0.0, 1.0]
    assert not bool(judge.verdicts(seen, ["b"], [None]).style)


def test_a_concept_that_the_judge_never_heard_of_is_an_error() -> None:
    with pytest.raises(KeyError):
        seven_concepts().verdicts(reading([0.0] * 6, 0), ["z"], [None])


def test_pictures_are_read_alike_in_any_batch_and_at_any_size(judge_folder: Path) -> None:
    judge = load_judge(judge_folder)
    pictures = [draw(label, "noto") for label in ("cherry", "lime", "plum")]
    together = judge.read(pictures).embedding
    alone = torch.cat([judge.read([each]).embedding for each in pictures])
    larger = judge.read([each.resize((64, 64), 0) for each in pictures]).embedding
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, larger, atol=1e-4)
    assert together.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_look_alike_styles_count_as_one_and_their_chances_add_up() -> None:
    model = Judge(JudgeConfig(width=8, side=16, text_dim=7, clusters=6, styles=("fluent", "fluent-3d", "noto")))
    judge = Trained(model, tuple("abcdefg"), tuple("ABCDEFG"), torch.tensor([0, 0, 1, 2, 3, 4, 5]), torch.eye(7))
    seen = replace(reading([0.0] * 6, 0), styles=torch.tensor([[1.0, 1.0, 1.5]]))
    assert judge.styles_seen(seen) == ["fluent-3d"]
    for asked, style, own in (("fluent", True, False), ("fluent-3d", True, False), ("noto", False, True)):
        found = judge.verdicts(seen, ["a"], [asked])
        assert (bool(found.style), bool(found.own_style)) == (style, own)


def test_what_the_texts_say_counts_as_much_as_the_classifier() -> None:
    judge = seven_concepts()
    seen = reading([0.0] * 6, 0)
    assert judge.guesses(seen) == ["C"]
    assert judge.guesses(replace(seen, clusters=torch.tensor([[0.0, 0.0, 99.0, 0.0, 0.0, 0.0]]))) == ["D"]


def test_six_looks_are_the_picture_from_near_and_far_and_mirrored() -> None:
    picture = torch.zeros(1, 3, 16, 16)
    picture[:, :, 4:12, 3:12] = 1
    seen = looks(picture)
    assert torch.equal(seen[0], picture)
    assert [torch.equal(one.flip(3), other) for one, other in zip(seen[::2], seen[1::2], strict=True)] == [True] * 3
    whole, farther, nearer = (float(each.mean()) for each in seen[::2])
    assert farther < whole < nearer


def test_looks_together_are_their_mean_and_keep_the_first_ones_features() -> None:
    one, other = reading([2.0, 0.0], 0), reading([0.0, 2.0], 1)
    both = together([one, replace(other, features=torch.ones(1, 4))])
    assert torch.equal(both.features, one.features)
    assert both.clusters[0, 0] == both.clusters[0, 1]
    assert float(both.embedding.norm()) == pytest.approx(1)


def test_the_score_of_a_picture_is_its_cosine_with_the_concept_that_its_prompt_names(
    judge_folder: Path, dataset: Dataset
) -> None:
    judge = load_judge(judge_folder)
    pictures = [draw("cherry", "noto"), draw("sun", "twemoji")]
    found = score(pictures, ["a cherry, noto style", "the SUN!"], judge_folder)
    asked = torch.tensor([judge.labels.index("cherry"), judge.labels.index("sun")])
    assert torch.allclose(found, (judge.study(pictures).embedding * judge.vectors[asked]).sum(1))
    assert torch.equal(found, score(pictures, [*pairs([dataset.pictures[0]]), "sun"], judge))
    with pytest.raises(UsageError, match="'a cherryless cake'"):
        score(pictures[:1], ["a cherryless cake"], judge)


def test_features_are_those_of_the_reference(judge_folder: Path, dataset: Dataset) -> None:
    found = features([draw("cherry", "noto")], judge_folder)
    assert torch.allclose(found[0], load_reference(judge_folder).features[0], atol=0.02)


def test_a_missing_judge_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FromnoiseError, match="fromnoise train judge"):
        load_judge(tmp_path)


def test_the_quick_score_tells_right_pictures_from_wrong_ones(judge_folder: Path, dataset: Dataset) -> None:
    score = QuickScore(judge_folder, dataset, pictures=8)
    assert [each.kind for each in score.asked] == [TRAINED] * 8 + [HELD_OUT]
    right = score([draw(each.label, each.style or "") for each in score.asked])
    wrong = score([draw("ink", "noto" if each.style == "twemoji" else "twemoji") for each in score.asked])
    for name in ("top1", "style", "score"):
        assert right[TRAINED][name] > wrong[TRAINED][name]
    assert as_line(right).count("style") == 2
