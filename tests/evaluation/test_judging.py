from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fromnoise.data import Dataset
from fromnoise.evaluation.judging import Trained, load_judge
from fromnoise.evaluation.quick import QuickScore
from fromnoise.models.judge import Judge, JudgeConfig, Reading
from fromnoise.runtime.errors import FromnoiseError
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
    seen = reading([9.0, 8.0, 7.0, 6.0, 5.0, 4.0], style=1)
    for concept, top1, top5 in (("a", True, True), ("b", True, True), ("c", False, True), ("g", False, False)):
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


def test_a_missing_judge_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FromnoiseError, match="fromnoise train judge"):
        load_judge(tmp_path)


def test_the_quick_score_tells_right_pictures_from_wrong_ones(judge_folder: Path, dataset: Dataset) -> None:
    score = QuickScore(judge_folder, dataset, pictures=8)
    assert len(score.prompts) == 8
    assert not any("ink, twemoji" in each for each in score.prompts)
    right = score([draw(each.label, each.style or "") for each in score.asked])
    wrong = score([draw("ink", "noto" if each.style == "twemoji" else "twemoji") for each in score.asked])
    assert right["top1"] > wrong["top1"]
    assert right["style"] > wrong["style"]
    assert right["score"] > wrong["score"]
