"""What will not fit is refused before a step is made, and drawings of other settings are not learnt from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.pipeline import load
from fromnoise.runtime.errors import UsageError
from fromnoise.training.claims import claim
from fromnoise.training.learner import Learner
from fromnoise.training.optimizers import adamw
from fromnoise.training.tuning import distill, dreambooth, lora, needs
from fromnoise.training.tuning.finetune import require_free_model
from fromnoise.training.tuning.needs import OPTIMISED, Room, kept_by_a_step, learning
from tests.training.test_tuning_watching import QUICK, pictures, task_of

__all__ = ["pictures"]


def learner_of(model: Path, **fields: object) -> Learner:
    task = task_of(model, "lora", **fields)
    return Learner(task, adamw(task.model.parameters()))


def test_what_a_step_keeps_grows_with_the_batch_and_shrinks_by_checkpointing(tiny_model: Path) -> None:
    learner = learner_of(tiny_model, batch=5)
    kept = kept_by_a_step(learner, learner.task)
    assert needs._kept(learner, learner.task, 5) == pytest.approx(kept, rel=0.05)
    lean = learner_of(tiny_model, batch=5, checkpointing=True)
    assert 5 * 4 * 4 * 8 * 8 < kept_by_a_step(lean, lean.task) < kept
    assert learner.task.recipe.batch == 5


def test_a_batch_of_one_is_judged_by_one_picture(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, counts, own = learner_of(tiny_model, batch=1), [], needs._kept
    monkeypatch.setattr(needs, "_kept", lambda *given: (counts.append(given[2]), own(*given))[1])
    assert kept_by_a_step(learner, learner.task) == own(learner, learner.task, 1)
    assert counts == [1]
    monkeypatch.setattr(needs, "free_bytes", lambda: learning(learner.task) * OPTIMISED + 1)
    with pytest.raises(UsageError, match=r"a batch of 1 .* use a larger machine or --checkpointing"):
        Room(learner.task).start(learner)


def test_a_run_that_goes_on_is_not_asked_again(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "free_bytes", lambda: 0)
    learner = learner_of(tiny_model)
    learner.step_index = 1
    Room(learner.task).start(learner)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_batch_that_will_not_fit_is_refused_with_advice(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    learner = learner_of(tiny_model, batch=64, checkpointing=checkpointing)
    needed = learning(learner.task) * OPTIMISED + kept_by_a_step(learner, learner.task)
    monkeypatch.setattr(needs, "free_bytes", lambda: needed + 1)
    Room(learner.task).start(learner)
    monkeypatch.setattr(needs, "free_bytes", lambda: needed - 1)
    with pytest.raises(UsageError, match=r"a step with a batch of 64 needs .* use a smaller --batch") as refused:
        Room(learner.task).start(learner)
    assert ("--checkpointing" in str(refused.value)) != checkpointing


def test_what_learns_will_not_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(tiny_model)
    monkeypatch.setattr(needs, "free_bytes", lambda: learning(learner.task) * OPTIMISED - 1)
    with pytest.raises(UsageError, match="let fewer learn"):
        Room(learner.task).start(learner)


SETTINGS = st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.integers(), st.floats(0, 9), st.none()))


@given(SETTINGS)
def test_a_claim_holds_for_the_same_settings_only(tmp_path_factory: pytest.TempPathFactory, settings: dict) -> None:
    folder = tmp_path_factory.mktemp("kept") / "drawings"
    claim(folder, settings)
    claim(folder, settings)
    with pytest.raises(UsageError, match="holds drawings with"):
        claim(folder, {**settings, "steps": "another"})


def test_drawings_of_unknown_making_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "0000.png").write_bytes(b"")
    with pytest.raises(UsageError, match="not how they were made"):
        claim(tmp_path, {})


def test_a_folder_that_another_process_claims_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, folder = Path.glob, tmp_path / "class"

    def glob(self: Path, pattern: str) -> list[Path]:
        (folder / "settings.json").write_text('{"steps": 4}')
        (folder / "0000.png").write_bytes(b"")
        return list(own(self, pattern))

    monkeypatch.setattr(Path, "glob", glob)
    claim(folder, {"steps": 4})
    with pytest.raises(UsageError, match="steps 4, not 5"):
        claim(folder, {"steps": 5})


def test_class_pictures_of_another_class_are_not_learnt(tmp_path: Path, tiny_model: Path) -> None:
    def begun(subject: str) -> None:
        recipe = dreambooth.DreamboothRecipe(
            model=str(tiny_model), token="sks", subject=subject, class_pictures=1, lora=True, **QUICK
        )
        dreambooth.class_samples(load(tiny_model), tmp_path / "class", recipe, lambda done, total: None)

    begun("dog")
    begun("dog")
    with pytest.raises(UsageError, match="prompt 'a dog', not 'a cat'"):
        begun("cat")


def test_a_teacher_s_drawings_with_other_settings_are_not_learnt(tmp_path: Path, tiny_model: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a dot\u2028a line\nanother\n", encoding="utf-8")

    def run(folder: Path, **fields: object) -> None:
        recipe = distill.DistillRecipe(
            model=str(tiny_model), jumps=2, teacher_steps=4, trajectories=4, rank=2, **{**QUICK, **fields}
        )
        distill.train([prompts], folder, recipe, folder / "fast.safetensors", overwrite=True)

    run(tmp_path / "run")
    kept = tmp_path / "run" / "trajectories"
    assert json.loads((kept / "settings.json").read_text())["jumps"] == 2
    (tmp_path / "run" / "checkpoint.pt").unlink()  # as if stopped before the first one
    with pytest.raises(UsageError, match="holds drawings with guidance"):
        run(tmp_path / "run", guidance=2.5)


def test_an_output_that_cannot_be_written_is_refused_before_training(
    tmp_path: Path, tiny_model: Path, pictures: Path
) -> None:
    (tmp_path / "file").write_text("")
    recipe = lora.LoraRecipe(model=str(tiny_model), rank=2, **QUICK)
    with pytest.raises(UsageError, match="can't write in"):
        lora.train([pictures], tmp_path / "run", recipe, tmp_path / "file" / "x.safetensors")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize("name", ["model.ckpt", "other"])
def test_a_place_where_no_model_can_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letters.txt").write_text("")
    with pytest.raises(UsageError):
        require_free_model(tmp_path / name, overwrite=True)
    assert require_free_model(tmp_path / "new", overwrite=False) == tmp_path / "new"
