"""What pictures and models say about themselves."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fromnoise.cli import info
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line

PARAMETERS = {"text_encoder", "unet", "vae"}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# A model\n")
    words = {"labels": [f"thing {n}" for n in range(40)], "styles": ["noto", "fluent 3d"]}
    (folder / "concepts.json").write_text(json.dumps(words))
    return folder


def counted(model: Path) -> int:
    from fromnoise.pipeline import load

    pipe = load(model)
    modules = (pipe.unet, pipe.autoencoder, pipe.text.clip_text)
    return sum(each.numel() for module in modules for each in module.parameters())


def test_a_model(run: Run, model: Path):
    result = run("info", model, "--json")
    facts = json.loads(result.stdout)
    assert (result.code, result.stderr) == (0, "")
    assert facts["model"] == str(model)
    assert facts["licence"] == "apache-2.0"
    assert set(facts["parts"]) == {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    assert {name for name, part in facts["parts"].items() if part["parameters"]} == PARAMETERS
    assert facts["parameters"] == counted(model)
    assert facts["bytes"] == sum(each.stat().st_size for name in facts["parts"] for each in (model / name).iterdir())
    assert facts["styles"] == ["noto", "fluent 3d"]
    assert len(facts["concepts"]) == 40


def test_a_model_for_a_person(run: Run, model: Path):
    text = run("info", model).stdout.decode()
    assert "UNet2DConditionModel, 0.99 M parameters, 4.0 MB" in text
    assert "noto, fluent 3d" in text
    assert "40 in all, --json lists them" in text
    assert "thing 11" in text
    assert "thing 12" not in text


def test_alone_it_is_the_embedded_model(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(info, "EMBEDDED_MODEL", model)
    assert json.loads(run("info", "--json").stdout)["model"] == str(model)


def test_a_picture(draw: Run, run: Run, tiny_model: Path):
    Image.new("RGB", (16, 16)).save("start.png")
    draw("img2img", "start.png", "a wolf\nat night", "--negative", "text", "--seed", 0, "-o", "a.jpg")
    facts = json.loads(run("info", "a.jpg", "--json").stdout)
    wanted = {"tool": "fromnoise", "format": "JPEG", "prompt": "a wolf\nat night", "negative": "text", "seed": 0}
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["size"] == "16x16"
    assert facts["model"] == tiny_model.name
    assert facts["init"].endswith("bytes, embedded")
    assert "a wolf at night" in run("info", "a.jpg").stdout.decode()


def test_a_picture_of_another_tool(run: Run):
    exif = Image.Exif()
    text = "a wolf\nSteps: 9, Sampler: Euler, CFG scale: 7, Seed: 1"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    Image.new("RGB", (8, 8)).save("theirs.webp", exif=exif)
    facts = json.loads(run("info", "theirs.webp", "--json").stdout)
    assert (facts["tool"], facts["prompt"], facts["Sampler"], facts["RNG"]) == (
        "AUTOMATIC1111",
        "a wolf",
        "Euler",
        "GPU",
    )


def test_a_picture_without_settings(run: Run):
    Image.new("RGB", (8, 4)).save("plain.png")
    result = run("info", "plain.png", "--json")
    assert json.loads(result.stdout) == {"picture": "plain.png", "format": "PNG", "size": "8x4", "settings": None}


def test_neither(run: Run, tiny_model: Path, empty_folder: Path):
    assert is_one_line(run("info", "none.png"), 2, "can't read none.png")
    assert is_one_line(run("info", empty_folder), 2, "no Stable Diffusion folder")
    broken = shutil.copytree(tiny_model, empty_folder / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    assert is_one_line(run("info", broken), 1, "is damaged")
