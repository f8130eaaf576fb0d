"""What a run measures of itself: loss on what was held out, drift, what it will need, and the tracker's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fromnoise.pipeline import load
from fromnoise.runtime.errors import UsageError
from fromnoise.training.learner import Learner
from fromnoise.training.optimizers import adamw
from fromnoise.training.record import Record
from fromnoise.training.tuning import inversion, lora
from fromnoise.training.tuning.controls import CONTROLS, Controls
from fromnoise.training.tuning.factors import learning_factors
from fromnoise.training.tuning.finetune import learning_unet
from fromnoise.training.tuning.needs import Forecast, Needs, measure
from fromnoise.training.tuning.pictures import Captioned, cut
from fromnoise.training.tuning.samples import ENOUGH, Pool, Sample, encoded, parted
from fromnoise.training.tuning.showing import Samples
from fromnoise.training.tuning.task import Learns, TuningTask
from tests.adapters.models import bits, same_bits

QUICK: dict[str, Any] = {"steps": 4, "batch": 2, "check_every": 2, "sample_every": 0, "sample_steps": 2, "rate": 0.01}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, colour in enumerate(("red", "green")):
        Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"{colour} dot")
    return folder


def task_of(model: Path, learner: str = "unet", **fields: Any) -> TuningTask:
    pipeline = load(model)
    latents = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = [Sample(each, (f"dot {index}",)) for index, each in enumerate(latents)]
    recipe = lora.LoraRecipe(**{**QUICK, "rank": 2, **fields})
    learns: Learns = learning_unet(pipeline)
    if learner == "lora":
        pipeline.unet.requires_grad_(False)
        learns = learning_factors(pipeline, lora.new_factors(pipeline, recipe))
    return TuningTask(pipeline, learns, [Pool(samples)], recipe)


def test_drift_is_the_relative_distance_of_predicted_pictures(tiny_model: Path) -> None:
    task = task_of(tiny_model)
    learner = Learner(task, adamw(task.model.parameters()))
    controls = Controls(task)
    controls.remember(learner)
    assert controls.drift(learner) == 0.0
    assert sum(len(each.captions) for each in controls.batches) == len(CONTROLS)
    before = torch.cat(controls.base)
    with torch.no_grad():
        for each in task.unet.conv_out.parameters():
            each.mul_(1.01)
    scale = 1.01 * before + (1 - 1.01) * torch.cat([_skipped(task, each) for each in controls.batches])
    expected = float((scale - before).norm() / before.norm())
    assert controls.drift(learner) == pytest.approx(expected, rel=1e-3)
    assert expected > 1e-3


def _skipped(task: TuningTask, batch: Any) -> torch.Tensor:
    """The part of a predicted picture that no network makes: c_skip x, for epsilon x itself."""
    sigma = task.schedule.sigmas[batch.times].float()[:, None, None, None]
    x = batch.example.input * (sigma**2 + 1).sqrt()
    return x if task.prediction == "epsilon" else x / (sigma**2 + 1)


def test_a_word_does_not_drift_and_a_lora_does(tmp_path: Path, tiny_model: Path, pictures: Path) -> None:
    word = inversion.InversionRecipe(model=str(tiny_model), token="<x>", init="dot", **QUICK)
    found = inversion.train([pictures], tmp_path / "word", word, tmp_path / "x.safetensors")
    assert found.drift == 0.0
    made = lora.LoraRecipe(model=str(tiny_model), **QUICK)
    lora.train([pictures], tmp_path / "lora", made, tmp_path / "lora.safetensors")
    lines = [json.loads(line) for line in (tmp_path / "lora" / "log.jsonl").read_text().splitlines()]
    drifts = {each["step"]: each["drift"] for each in lines if "drift" in each}
    assert drifts[0] == 0.0 and drifts[4] > 1e-4
    assert [each["step"] for each in lines if "loss" in each] == [4], "few steps leave a loss as well"
    notes = [each["note"] for each in lines if "note" in each]
    assert [note.split()[0] for note in notes[1:]] == ["stopped", "loss"] and "parameters learn" in notes[0]


def test_too_much_drift_ends_a_run_and_keeps_what_was_near(
    tmp_path: Path, tiny_model: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = lora.LoraRecipe(model=str(tiny_model), **{**QUICK, "steps": 60, "most_drift": 1e-3})
    with caplog.at_level("INFO", "fromnoise"):
        result = lora.train([pictures], tmp_path / "run", made, tmp_path / "x.safetensors")
    assert "away from the base model's, more than 0.001" in caplog.text
    assert result.drift <= 1e-3
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] < 60


def test_of_few_pictures_nearer_views_are_held_out(tiny_model: Path, pictures: Path) -> None:
    pipeline = load(tiny_model)
    few = [Captioned(pictures / "0.png"), Captioned(pictures / "1.png")]
    learnt, held = parted(pipeline, few, [("a",), ("b",)])
    assert (len(learnt), len(held.samples), held.name) == (2, 2, "nearer views of the pictures")
    assert [each.captions for each in held.samples] == [("a",), ("b",)]
    whole = encoded(pipeline, few, [("a",), ("b",)])
    assert torch.equal(learnt[0].latents, whole[0].latents)
    assert not torch.equal(held.samples[0].latents, whole[0].latents)
    many = [Captioned(pictures / "0.png")] * ENOUGH
    learnt, held = parted(pipeline, many, [("a",)] * ENOUGH)
    assert (len(learnt), len(held.samples), held.name) == (ENOUGH - 1, 1, "held-out pictures")


def test_a_nearer_view_is_a_corner_enlarged() -> None:
    picture = Image.new("RGB", (20, 10), "white")
    picture.paste("red", (0, 0, 10, 5))
    for corner, colours in enumerate(((255, 0, 0), (255, 255, 255), (255, 255, 255), (255, 255, 255))):
        view = cut(picture, corner, 0.5)
        assert view.size == (20, 10)
        assert view.getpixel((10, 5)) == colours


def test_warming_up_changes_no_weight(tiny_model: Path) -> None:
    task = task_of(tiny_model)
    before = bits(task.unet)
    learner = Learner(task, adamw(task.model.parameters()))
    needs = measure(learner, task)
    assert same_bits(task.unet, before)
    assert all(each.grad is None for each in task.model.parameters())
    assert needs.learn == sum(each.numel() for each in task.unet.parameters())
    assert needs.seconds > 0


class Took:
    """Stands for something that took so long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def test_the_forecast_counts_checks_and_pictures(tiny_model: Path) -> None:
    task = task_of(tiny_model, steps=100, check_every=25, sample_every=50)
    forecast = Forecast(task, Took(10.0), Took(4.0))  # type: ignore[arg-type]
    needs = Needs(1000, 4000, 2**30, 0.5)
    assert forecast.seconds(needs, 100) == 100 * 0.5 + 4 * 4.0 + 3 * 10.0
    assert forecast.seconds(needs, 30) == 30 * 0.5 + 4.0 + 10.0
    assert "1,000 parameters learn (25.00% of 4,000); about 1.0 GiB" in forecast.text(needs, 100)
    assert "1 min 36 s for 100 steps" in forecast.text(needs, 100)


def test_the_tracker_holds_loss_and_pictures(tmp_path: Path, tiny_model: Path, pictures: Path) -> None:
    pytest.importorskip("tensorboardX")
    made = lora.LoraRecipe(model=str(tiny_model), **{**QUICK, "sample_every": 4, "track": True})
    lora.train([pictures], tmp_path / "run", made, tmp_path / "x.safetensors")
    found = [each for file in (tmp_path / "run" / "tensorboard").iterdir() for each in events(file)]
    assert {(name, step) for name, step, _ in found} >= {
        *((name, step) for name in ("held_out_loss", "drift") for step in (0, 2, 4)),
        ("samples", 0),
        ("samples", 4),
    }
    picture = next(value for name, step, value in found if (name, step) == ("samples", 4))
    assert picture.image.encoded_image_string.startswith(b"\x89PNG")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    first = next(value.simple_value for name, step, value in found if (name, step) == ("held_out_loss", 0))
    assert first == pytest.approx(log[0]["held_out_loss"], rel=1e-4)


def events(file: Path) -> list[tuple[str, int, Any]]:
    """Tag, step and value of all records of an event file (TFRecord: length, its CRC, data, its CRC)."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = file.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found += [(value.tag, event.step, value) for value in event.summary.value]
        data = data[16 + size :]
    return found


def test_a_tracker_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(UsageError, match=r"pip install 'fromnoise\[track\]'"):
        Record(tmp_path, track=True)


def test_samples_remember_how_long_they_take(tmp_path: Path) -> None:
    record = Record(tmp_path)
    made = Samples(tmp_path, ("a",), lambda: [Image.new("RGB", (16, 16))], 2, record)
    made.show(2)
    other = Samples(tmp_path, ("a",), list, 2, record)
    other.load(made.state())
    assert other.seconds == made.seconds > 0


@pytest.mark.parametrize(("step", "times"), [(0, 2), (2, 1)])
def test_only_a_resumed_run_keeps_the_first_sheet(tmp_path: Path, tiny_model: Path, step: int, times: int) -> None:
    """One that was stopped before its first checkpoint may have had other settings."""
    drawn: list[Image.Image] = []

    def draw() -> list[Image.Image]:
        drawn.append(Image.new("RGB", (16, 16)))
        return drawn[-1:]

    task = task_of(tiny_model)
    learner = Learner(task, adamw(task.model.parameters()))
    for learner.step_index in (0, step):
        Samples(tmp_path, ("a",), draw, 2, Record(tmp_path)).start(learner)
    assert len(drawn) == times
    assert [each.name for each in (tmp_path / "samples").iterdir()] == ["step-000000.png"]


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that a forward pass keeps for its gradient, weights left out."""

    def __init__(self, task: TuningTask) -> None:
        self.bytes = 0
        weights = {each.data_ptr() for each in task.unet.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            self.bytes += 0 if tensor.data_ptr() in weights else tensor.numel() * tensor.element_size()
            return tensor

        super().__init__(pack, lambda tensor: tensor)


@pytest.mark.parametrize("kind", ["unet", "lora"])
def test_checkpointing_keeps_the_gradient_and_less_memory(tiny_model: Path, kind: str) -> None:
    kept, gradients = [], []
    for saving in (False, True):
        task = task_of(tiny_model, kind, checkpointing=saving, dropout=0.2 if kind == "lora" else 0.0)
        if kind == "lora":
            for each in task.model.parameters():
                torch.nn.init.normal_(each, std=0.1, generator=torch.Generator().manual_seed(each.numel()))
        batch = task.batch(0)
        saved = Saved(task)
        with saved:
            loss = task.loss(task.predict(batch), batch)
        loss.backward()
        kept.append(saved.bytes)
        gradients.append([each.grad for each in task.model.parameters()])
        assert "forward" not in vars(task.unet.mid_block.resnets[0])
    assert kept[1] < 0.5 * kept[0]
    for one, other in zip(*gradients, strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(one.abs().max() + 1e-6))
