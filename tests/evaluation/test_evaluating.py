from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fromnoise.data import Dataset
from fromnoise.evaluation import distances, evaluate, evaluating, is_prepared, prepare, require_room
from fromnoise.evaluation.distances import nearest
from fromnoise.evaluation.drawing import draw, rebuilt
from fromnoise.evaluation.evaluating import Drawn, choose, frechet_distances, look, psnr, recall
from fromnoise.evaluation.prompts import HELD_OUT, REWORDED, TRAINED, Prompt
from fromnoise.evaluation.reference import compact, load_reference, measure_ceiling, principal_axes
from fromnoise.images.convert import to_tensor
from fromnoise.models.judge import Judge
from fromnoise.pipeline import load
from fromnoise.request import Request
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.training.judging import load_judge
from tests import small_dataset
from tests.small_dataset import write_dataset

MARBLE = Prompt("a marble", "1f000", "cherry", None, REWORDED)
LAGOON = Prompt("a lagoon", "1f003", "sea", None, REWORDED)
UNICORN = Prompt("horned horse", "1f984", "unicorn", None, REWORDED)


@pytest.mark.parametrize("pag", [0.0, 2.0])
def test_a_batch_of_prompts_draws_what_each_prompt_draws_alone(tiny_model: Path, pag: float) -> None:
    pipe, prompts = load(tiny_model), ["a cherry", "a lime, noto style", "the sea"]
    settings = Request(seed=7, steps=3, guidance=3.0, pag=pag)
    together = draw(pipe, prompts, settings, batch=2)
    for index, prompt in enumerate(prompts):
        alone = pipe(settings.with_(prompt=prompt, seed=7 + index))[0].image
        assert np.abs(np.asarray(alone, int) - np.asarray(together[index], int)).max() <= 2


def test_the_reference_holds_what_the_judge_saw(judge_folder: Path, dataset: Dataset) -> None:
    judge, reference = load_judge(judge_folder), load_reference(judge_folder)
    held = [row for row, each in enumerate(dataset.pictures) if each.split == "held_out"]
    assert [np.asarray(each).tolist() for each in reference.held_out] == dataset.pixels(held).tolist()
    assert len(reference.prompts) == len(dataset) == len(reference.features)
    seen = judge.read([Image.fromarray(each) for each in dataset.all_pixels])
    assert torch.allclose(reference.project(seen.features), reference.features, atol=0.02)
    assert reference.ceiling == measure_ceiling(judge, dataset)
    assert reference.ceiling.n == 1


def test_a_judge_that_was_trained_on_must_read_the_real_pictures_again(judge_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(judge_folder, tmp_path / "judge")
    assert is_prepared(tmp_path / "judge")
    (tmp_path / "judge" / "model.safetensors").write_bytes(b"other weights")
    assert not is_prepared(tmp_path / "judge")


def test_a_judge_reads_the_real_pictures_of_another_dataset_again(
    judge_folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(judge_folder, tmp_path / "judge")
    other = write_dataset(tmp_path / "other", ["cherry", "sun", "ink"])
    assert is_prepared(tmp_path / "judge", dataset.folder)
    assert not is_prepared(tmp_path / "judge", other.folder)
    prepare(other.folder, tmp_path / "judge")
    assert is_prepared(tmp_path / "judge", other.folder)
    assert not is_prepared(tmp_path / "judge", dataset.folder)


def test_a_judge_is_not_asked_about_what_it_never_heard_of(
    judge_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FromnoiseError, match="no judge in"):
        prepare(tmp_path / "nowhere", tmp_path / "nowhere")
    few = write_dataset(tmp_path / "few", ["cherry", "lime"])
    with pytest.raises(UsageError, match="holds out no pictures"):
        prepare(few.folder, judge_folder)
    monkeypatch.setitem(small_dataset.COLOURS, "mint", "#00ff90")
    other = write_dataset(tmp_path / "other")
    with pytest.raises(UsageError, match=r"another dataset than .*: it doesn't know 'mint'; name its own with --data"):
        prepare(other.folder, judge_folder)


def test_reworded_prompts_that_the_judge_cannot_judge_are_left_out(
    judge_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluating, "reworded", lambda: [UNICORN, MARBLE, LAGOON])
    asked = choose(load_reference(judge_folder), 2, seed=0)
    assert [each for each in asked if each.kind == REWORDED] == [MARBLE, LAGOON]
    assert "1 reworded prompts are left out" in caplog.text


def test_a_compact_judge_says_what_the_whole_one_says(judge_folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    """Here the vectors are narrower than the features, so a wide text head shows that they shrink."""
    whole = load_judge(judge_folder)
    wide = Judge(replace(whole.model.config, text_dim=100))
    weights = {name: each for name, each in whole.model.state_dict().items() if not name.startswith("text_head")}
    wide.load_state_dict({**wide.state_dict(), **weights})
    vectors = torch.randn(len(whole.names), 100, generator=torch.Generator().manual_seed(0))
    judge = replace(whole, model=wide.eval(), vectors=F.normalize(vectors, dim=1))
    compact(judge, tmp_path / "small")
    small = load_judge(tmp_path / "small")
    assert small.vectors.shape[1] == wide.encoder.channels + 1 < 100
    shown, asked = [Image.fromarray(each) for each in dataset.all_pixels], [each.concept for each in dataset.pictures]
    one, other = (each.verdicts(each.study(shown), asked, [None] * len(asked)) for each in (judge, small))
    assert torch.allclose(one.score, other.score, atol=5e-3)
    assert torch.equal(one.top5, other.top5)


def test_trained_pairs_are_those_that_the_judge_never_saw_while_there_are_enough(judge_folder: Path) -> None:
    reference = load_reference(judge_folder)
    few = [each for each in choose(reference, 1, seed=0) if each.kind == TRAINED]
    many = [each for each in choose(reference, 5, seed=0) if each.kind == TRAINED]
    assert [(each.label, each.style) for each in few] == [("sun", "noto")]
    assert len(set(many)) == 5


def test_principal_axes_keep_distances_up_to_one_scale() -> None:
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 2, 1, 1, 1])
    axes, centre = principal_axes(features, 6)
    projected = (features - centre) @ axes
    assert float(projected.square().mean()) == pytest.approx(1, rel=1e-4)
    stretch = torch.pdist(features) / torch.pdist(projected)
    assert float(stretch.std() / stretch.mean()) < 1e-4


def test_drawings_that_are_copies_are_called_copies(judge_folder: Path) -> None:
    judge, reference = load_judge(judge_folder), load_reference(judge_folder)
    asked = reference.asking(TRAINED)
    copies = [small_dataset.draw(each.label, each.style or "") for each in asked]
    strange = [Image.effect_noise((32, 32), 200).convert("RGB") for _ in asked]
    copied = reference.of(HELD_OUT) + 0.01
    assert recall(look(judge, reference, asked, copies), reference, copied).copies.value > 0.9  # type: ignore[union-attr]
    assert recall(look(judge, reference, asked, strange), reference, copied).copies.value == 0  # type: ignore[union-attr]


def test_frechet_distances_hold_drawn_pictures_against_real_ones_of_other_pairs(
    judge_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, reference = load_judge(judge_folder), load_reference(judge_folder)
    asked = reference.asking(TRAINED)[:5]
    drawn = look(judge, reference, asked, [small_dataset.draw(each.label, each.style or "") for each in asked])
    strange = look(judge, reference, asked, [Image.new("RGB", (32, 32), "black") for _ in asked])
    assert frechet_distances(drawn, reference) == (None, None)
    monkeypatch.setattr(distances, "FID_LEAST", 5)
    same, floor = frechet_distances(drawn, reference)
    worse, _ = frechet_distances(strange, reference)
    assert same == pytest.approx(floor, rel=0.05)
    assert worse is not None
    assert worse > 1.2 * floor  # type: ignore[operator]


def test_frechet_distances_are_of_clouds_of_one_size(judge_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = load_reference(judge_folder)
    asked = reference.asking(TRAINED)
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(evaluating, "fid", lambda x, y: sizes.append((len(x), len(y))))
    for count in (3, 8):
        features = reference.features[reference.shown_by(asked[:count])]
        frechet_distances(Drawn(asked[:count], None, features), reference)  # type: ignore[arg-type]
    assert sizes == [(3, 3), (3, 3), (3, 3), (3, 3)]


def test_two_real_pictures_of_one_pair_are_asked_for_once_and_are_no_other_pairs(
    judge_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = load_reference(judge_folder)
    pairs = reference.asking(TRAINED)
    prompts = tuple(pairs[0] if each == pairs[1] else each for each in reference.prompts)
    twice = replace(reference, prompts=prompts)
    assert choose(twice, 10, seed=0).count(pairs[0]) == 1
    seen: list[Tensor] = []
    monkeypatch.setattr(evaluating, "fid", lambda _, others: seen.append(others))
    asked = [pairs[0], *pairs[2:8]]
    frechet_distances(Drawn(asked, None, reference.features[:7]), twice)  # type: ignore[arg-type]
    others = twice.features[torch.tensor([each in pairs[8:] for each in prompts])]
    assert sorted(seen[0].tolist()) == sorted(others.tolist())


def test_psnr_of_a_known_error() -> None:
    original = torch.zeros(2, 3, 4, 4)
    assert psnr(original + 0.2, original) == pytest.approx(20.0, abs=1e-4)


def test_evaluate_draws_judges_and_reports(
    tiny_model: Path, judge_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "reworded", lambda: [MARBLE, LAGOON])
    told: list[tuple[int, int]] = []
    report = evaluate(
        tiny_model, pictures=3, steps=1, judge=judge_folder, show=lambda done, total: told.append((done, total))
    )
    assert [(each.kind, each.top5.n) for each in report.shares] == [(TRAINED, 3), (HELD_OUT, 1), (REWORDED, 2)]
    assert [each.style is None for each in report.shares] == [False, False, True]
    assert told[-1] == (6, 6)
    assert report.likeness.kid is None
    assert report.rebuilt.top5.n == 1
    paths = report.save(tmp_path / "out")
    values = json.loads(paths[0].read_text())
    assert values["settings"]["steps"] == 1
    assert (values["dtype"], values["threads"]) == ("float32", torch.get_num_threads())
    assert f"float32, {torch.get_num_threads()} thread" in paths[1].read_text()
    assert values["shares"][0]["top5"]["value"] == report.shares[0].top5.value
    assert "reworded prompts" in paths[1].read_text()
    assert Image.open(paths[2]).size == report.sheet.size


def test_a_reconstruction_is_what_the_autoencoder_makes_of_a_picture(tiny_model: Path) -> None:
    pipe, picture = load(tiny_model), small_dataset.draw("sun", "noto")
    (found,) = rebuilt(pipe.autoencoder, [picture])
    with torch.no_grad():
        expected = pipe.autoencoder.decode(pipe.autoencoder.encode(to_tensor(picture))).clamp(-1, 1)
    assert torch.allclose(found, expected)
    assert nearest(found.flatten(1), expected.flatten(1)) < 1e-3


@pytest.mark.parametrize("name", ["report.json", "report.txt", "sheet.png"])
def test_what_a_report_would_overwrite_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"{name} exists"):
        require_room(tmp_path)
    require_room(tmp_path, overwrite=True)
    require_room(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't write in"):
        require_room(tmp_path / "file")
