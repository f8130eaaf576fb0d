"""What of a training run is published, and what its card says of settings, data and pictures."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fromnoise.hub.names import Name
from fromnoise.hub.pulling import pull
from fromnoise.hub.pushing import Plan, plan, push
from fromnoise.runtime.errors import UsageError
from tests.hub.server import Hub

HERE = "me/x"
RECIPE = 'model = "/home/jane/models/sd15"\nsteps = 900\nrank = 32\ninit = ""\ntoken = "pixelart"\n'
LAYER = "lora_unet_down_blocks_0_attentions_0_proj_in"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def write_lora(path: Path, **metadata: str) -> Path:
    factors = {f"{LAYER}.lora_down.weight": torch.ones(2, 320), f"{LAYER}.lora_up.weight": torch.ones(320, 2)}
    save_file({**factors, f"{LAYER}.alpha": torch.tensor(2.0)}, path, {"ss_network_dim": "2", **metadata})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run as the trainers leave it, without a result."""
    folder = tmp_path / "run"
    for name in ("samples/step-000000.png", "samples/step-000900.png", "sheet.png", "class/0000.png"):
        picture(folder / name)
    (folder / "kept").mkdir()
    for name in ("checkpoint.pt", "best.pt", "kept/000000.pt"):
        (folder / name).write_bytes(b"\x80\x04.")
    write_lora(folder / "now.safetensors")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "log.jsonl").write_text('{"step": 0, "held_out_loss": 0.5}\n')
    return folder


STORY = ["log.jsonl", "recipe.toml", "samples/step-000000.png", "samples/step-000900.png", "sheet.png"]


def card_of(prepared: Plan) -> str:
    assert prepared.card is not None
    return prepared.card


def test_a_run_publishes_its_result_and_its_story(
    hub: Hub, logged_in: str, folder: Path, caplog: pytest.LogCaptureFixture
):
    write_lora(folder / "lora.safetensors")
    with caplog.at_level(logging.INFO, "fromnoise"):
        prepared = plan(folder, HERE, "mit")
    assert sorted(prepared.files) == sorted([*STORY, "lora.safetensors"])
    assert "not published: best.pt, checkpoint.pt, class, kept, now.safetensors; " in caplog.text
    push(prepared)
    assert "checkpoint.pt" not in hub.repositories[HERE].files
    assert (folder / "README.md").is_file()
    assert pull(Name(HERE)).here.model.name == "lora.safetensors"  # type: ignore[union-attr]
    assert "README.md" in plan(folder, HERE).files


def test_a_run_s_model_is_published_as_a_model(hub: Hub, logged_in: str, folder: Path, tiny_model: Path):
    shutil.copytree(tiny_model, folder / "model")
    prepared = plan(folder, HERE, "mit")
    model = [path.relative_to(tiny_model).as_posix() for path in tiny_model.rglob("*") if path.is_file()]
    assert sorted(prepared.files) == sorted([*STORY, *model])
    assert "| unet | UNet2DConditionModel, " in card_of(prepared)
    push(prepared)
    assert set(pull(Name(HERE)).here.files) >= {"model_index.json", "unet/diffusion_pytorch_model.safetensors"}


def test_a_run_that_stopped_without_a_checkpoint_is_one(folder: Path):
    (folder / "checkpoint.pt").unlink()
    write_lora(folder / "lora.safetensors")
    assert "best.pt" not in plan(folder, HERE, "mit").files


def test_a_run_without_a_result(folder: Path):
    with pytest.raises(UsageError, match=r"run holds no result.*--resume.*-o .*--run "):
        plan(folder, HERE, "mit")


def test_a_run_with_several_results(folder: Path, tiny_model: Path):
    shutil.copytree(tiny_model, folder / "model-100")
    shutil.copytree(tiny_model, folder / "model-400")
    with pytest.raises(UsageError, match=r"several results \(model-100, model-400\); publish one: .*model-100"):
        plan(folder, HERE, "mit")
    assert "| steps | 900 |" in card_of(plan(folder / "model-400", HERE, "mit"))


@pytest.mark.parametrize("missing", ["recipe.toml", "log.jsonl"])
def test_elsewhere_pickles_are_refused_as_before(folder: Path, missing: str):
    write_lora(folder / "lora.safetensors")
    (folder / missing).unlink()
    with pytest.raises(UsageError, match=r"best\.pt may carry code"):
        plan(folder, HERE, "mit")


def test_the_card_of_a_run(folder: Path):
    write_lora(folder / "lora.safetensors")
    card = card_of(plan(folder, HERE, "mit"))
    for row in ("| rank | 2 |", "| steps | 900 |", "| token | pixelart |", "| model | sd15 |"):
        assert row in card
    assert "jane" not in card
    assert "| rank | 32 |" not in card
    assert "| init |" not in card
    shown = [line[2 : line.index("]")] for line in card.splitlines() if line.startswith("![")]
    assert shown == ["sheet.png", "samples/step-000000.png", "samples/step-000900.png"]


def test_the_last_of_many_samples_are_shown(folder: Path):
    write_lora(folder / "lora.safetensors")
    for step in range(1, 20):
        picture(folder / "samples" / f"step-{step:06d}.png")
    card = card_of(plan(folder, HERE, "mit"))
    assert card.count("![") == 12
    assert "![sheet.png]" in card
    assert "![samples/step-000900.png]" in card
    assert "step-000001" not in card


def test_a_run_s_file_by_itself_has_its_settings(folder: Path):
    prepared = plan(write_lora(folder / "lora.safetensors"), HERE, "mit")
    assert list(prepared.files) == ["lora.safetensors"]
    assert "| steps | 900 |" in card_of(prepared)


def test_a_result_elsewhere_names_its_run(folder: Path, tiny_model: Path, tmp_path: Path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "fm"))
    (folder / "README.md").write_text("Another card.")
    prepared = plan(model, HERE, "mit", run=folder)
    assert set(prepared.files) > {"model_index.json", *STORY}
    card = card_of(prepared)
    assert "| steps | 900 |" in card
    assert "![sheet.png]" in card
    lone = plan(write_lora(tmp_path / "x.safetensors"), HERE, "mit", run=folder)
    assert sorted(lone.files) == sorted([*STORY, "x.safetensors"])
    with pytest.raises(UsageError, match=r"fm is no training run: it has no recipe\.toml"):
        plan(model, HERE, "mit", run=model)


def test_training_data_is_what_the_person_says(folder: Path, caplog: pytest.LogCaptureFixture):
    lora = write_lora(folder / "lora.safetensors")
    with caplog.at_level(logging.INFO, "fromnoise"):
        assert "## Training data\n\nNot known" in card_of(plan(lora, HERE, "mit"))
    assert "--data" in caplog.text
    card = card_of(plan(folder, HERE, "mit", data="64 sprites of my own, CC0"))
    assert "## Training data\n\n64 sprites of my own, CC0\n\n## Settings" in card


def test_a_card_that_is_there_is_not_told_data(folder: Path, caplog: pytest.LogCaptureFixture):
    write_lora(folder / "lora.safetensors")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    with caplog.at_level(logging.INFO, "fromnoise"):
        assert plan(folder, HERE, data="sprites").card is None
    assert "README.md is there already; write there what --data says" in caplog.text


RECORDED = {"steps": 70, "pictures": {"count": 64, "names": ["/home/jane/pixel-art", "C:\\jane\\more"]}}


def test_recorded_pictures_and_settings(tmp_path: Path, tiny_model: Path):
    lora = write_lora(tmp_path / "x.safetensors", **{"fromnoise.training": json.dumps(RECORDED)})
    model = Path(shutil.copytree(tiny_model, tmp_path / "fm"))
    (model / "training.json").write_text(json.dumps(RECORDED))
    for source in (lora, model):
        card = card_of(plan(source, HERE, "mit"))
        assert "## Training data\n\n64 pictures: pixel-art, more\n" in card
        assert "| steps | 70 |" in card
        assert "pictures." not in card
        assert "jane" not in card


@pytest.mark.parametrize("said", ["no JSON", "[1]", '{"pictures": {"names": 3}}'])
def test_damaged_records_are_no_reason_not_to_publish(tmp_path: Path, said: str):
    lora = write_lora(tmp_path / "x.safetensors", **{"fromnoise.training": said})
    assert "Not known" in card_of(plan(lora, HERE, "mit"))


def test_a_number_of_pictures_is_a_setting(folder: Path):
    (folder / "recipe.toml").write_text("pictures = 40\n")
    card = card_of(plan(write_lora(folder / "lora.safetensors"), HERE, "mit"))
    assert "| pictures | 40 |" in card
    assert "Not known" in card


def test_what_was_distilled_learnt_from_the_model_itself(folder: Path):
    (folder / "recipe.toml").write_text("jumps = 4\ntrajectories = 1600\n")
    card = card_of(plan(write_lora(folder / "fast.safetensors"), HERE, "mit"))
    assert "## Training data\n\n1600 drawings by the base model itself\n" in card
