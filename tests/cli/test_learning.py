"""`dataset`, `train` and `evaluate` hand over what was asked, with progress."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import fromnoise.data
from fromnoise.runtime.paths import JUDGE
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line


@pytest.mark.parametrize("part", ["autoencoder", "text-encoder", "denoiser", "judge"])
def test_train(run: Run, monkeypatch: pytest.MonkeyPatch, part: str):
    calls: list[tuple[Any, ...]] = []

    def train(dataset: Path, folder: Path, recipe: Path | None, *, resume: bool, show: Any) -> None:
        show(1, 2, 0.5, 10.0, 3700.0)
        calls.append((dataset, folder, recipe, resume))

    fake = ModuleType("fake")
    fake.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"fromnoise.training.{part.replace('-', '_')}", fake)
    result = run("train", part, "--recipe", "r.toml", "--resume", "--dataset", "pictures")
    assert (result.code, result.paths, result.stderr) == (0, [Path("runs") / part], "")
    assert run("train", part, "--run", "here").code == 0
    assert calls == [
        (Path("pictures"), Path("runs") / part, Path("r.toml"), True),
        (Path("dataset"), Path("here"), None, False),
    ]


def test_training_is_not_thrown_away(run: Run):
    Path("runs/judge").mkdir(parents=True)
    Path("runs/judge/checkpoint.pt").touch()
    assert is_one_line(run("train", "judge"), 2, "--resume goes on from it")


def test_unknown_part(run: Run):
    assert is_one_line(run("train", "toaster"), 2, "No such command 'toaster' (see fromnoise train --help)")


def test_what_can_be_trained_is_listed(run: Run):
    listed = run("train", "--help").stdout.decode()
    names = ("textual-inversion", "lora", "dreambooth", "finetune", "autoencoder", "text-encoder", "denoiser", "judge")
    assert all(name in listed for name in names)


def test_train_without_a_dataset(run: Run):
    assert is_one_line(run("train", "autoencoder"), 2, "fromnoise dataset dataset")


def test_dataset(run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def build(folder: Path, *, progress: Any) -> SimpleNamespace:
        progress(1, 2)
        rows = (("noto", 5, ""), ("x", 0, "gone"))
        sources = [SimpleNamespace(style=style, pictures=count, skipped=why) for style, count, why in rows]
        return SimpleNamespace(sources=sources)

    monkeypatch.setattr(fromnoise.data, "build_dataset", build)
    with caplog.at_level("INFO", "fromnoise"):
        result = run("dataset", "pictures")
    assert (result.code, result.paths) == (0, [Path("pictures")])
    assert "5 pictures" in caplog.text
    assert "warning: the dataset lacks x: what is trained on it can't be compared" in result.stderr


def test_evaluate(run: Run, monkeypatch: pytest.MonkeyPatch):
    import fromnoise.evaluation

    asked: list[tuple[Any, ...]] = []
    saved: list[tuple[Path, bool]] = []

    def save(folder: Path, *, overwrite: bool) -> list[Path]:
        saved.append((folder, overwrite))
        return []

    def evaluate(model: Path | None, *, pictures: int | None, judge: Path, fast: bool, show: Any) -> SimpleNamespace:
        show(1, 2)
        asked.append((model, pictures, judge))
        return SimpleNamespace(to_json=lambda: "{}\n", to_text=lambda: "figures\n", save=save)

    monkeypatch.setattr(fromnoise.evaluation, "evaluate", evaluate)
    assert run("evaluate").stdout == b"figures\n"
    assert run("evaluate", "a", "--json", "--pictures", 3, "-o", "b", "--overwrite").stdout == b"{}\n"
    assert asked == [(None, None, JUDGE), (Path("a"), 3, JUDGE)]
    assert saved[0][0].parent == Path("outputs")
    assert saved[1] == (Path("b"), True)
    assert run("evaluate", "--pictures", 0).code == 2
    Path("c").mkdir()
    Path("c/report.txt").touch()
    assert is_one_line(run("evaluate", "-o", "c"), 2, "c/report.txt exists")
    assert is_one_line(run("evaluate", "--dataset", "pictures"), 2, "--dataset goes with a --judge of your own")
    assert is_one_line(run("evaluate", "--judge", "nowhere"), 1, "no judge in nowhere")
    assert len(asked) == 2
    prepared: list[tuple[Path, Path]] = []
    monkeypatch.setattr(fromnoise.evaluation, "prepare", lambda *folders: prepared.append(folders))
    assert run("evaluate", "--judge", "mine", "--dataset", "pictures").code == 0
    assert prepared == [(Path("pictures"), Path("mine"))]
    assert asked[-1] == (None, None, Path("mine"))
