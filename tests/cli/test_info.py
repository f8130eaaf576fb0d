"""What pictures and models say about themselves."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fromnoise.checkpoints.convert import convert_checkpoint
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
    assert facts["parts"].keys() == PARAMETERS
    assert (facts["family"], facts["prediction"]) == ("custom", "v_prediction")
    assert facts["parameters"] == counted(model)
    assert facts["bytes"] == 4 * facts["parameters"]
    assert facts["styles"] == ["noto", "fluent 3d"]
    assert len(facts["concepts"]) == 40


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("license:\n- mit\n- other", "mit, other"),
        ("license:\ntags: [x]", None),
        ("license: other\nlicense_name: my-own", "my-own"),
        ("tags: [x]", None),
    ],
)
def test_the_licence_on_the_card(run: Run, model: Path, head: str, licence: str | None):
    (model / "README.md").write_text(f"---\n{head}\n---\n# A model\nlicense: none\n")
    assert json.loads(run("info", model, "--json").stdout)["licence"] == licence


def test_a_path_stays_in_one_piece(run: Run, model: Path, tmp_path: Path):
    path = model.rename(tmp_path / "-".join(["a-long-name"] * 12))
    assert str(path) in run("info", path).stdout.decode()


def test_a_single_file(run: Run, model: Path, tmp_path: Path):
    convert_checkpoint(model, tmp_path / "model.safetensors")
    whole, file = (json.loads(run("info", path, "--json").stdout) for path in (model, tmp_path / "model.safetensors"))
    assert file["parts"] == whole["parts"]


def test_a_model_for_a_person(run: Run, model: Path):
    text = run("info", model).stdout.decode()
    assert "UNet2DConditionModel, 0.99 M parameters, 3.9 MB" in text
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
    assert facts["replay"].startswith("yes, exactly")
    assert "a wolf at night" in run("info", "a.jpg").stdout.decode()


def test_a_picture_of_another_tool(run: Run):
    exif = Image.Exif()
    text = (
        "a wolf, <lora:fur:0.8>\nSteps: 9, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 64x96, ENSD: 31337, "
        "Denoising strength: 0.5, Model: v1-5"
    )
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    Image.new("RGB", (8, 8)).save("theirs.webp", exif=exif)
    facts = json.loads(run("info", "theirs.webp", "--json").stdout)
    assert (facts["tool"], facts["prompt"], facts["size"]) == ("AUTOMATIC1111", "a wolf, <lora:fur:0.8>", "8x8")
    assert (facts["settings"]["Sampler"], facts["settings"]["RNG"]) == ("DPM++ 2M Karras", "GPU")
    assert (facts["request"]["sampler"], facts["request"]["schedule"]) == ("dpmpp-2m", "karras")
    assert (facts["request"]["size"], facts["request"]["steps"], facts["request"]["strength"]) == ("64x96", 9, 0.5)
    assert facts["missing"] == ["the picture that it started from", "the LoRA 'fur' at 0.8"]
    assert facts["not read"] == ["ENSD: 31337"]
    assert facts["replay"].startswith("only nearly: with the model v1-5")
    said = run("info", "theirs.webp").stdout.decode()
    for line in ("seed 1, steps 9, guidance 7.0, sampler dpmpp-2m, schedule karras", "not read            ENSD: 31337"):
        assert line in " ".join(said.split()) or line in said


def with_chunks(path: str, **chunks: str) -> None:
    info = PngInfo()
    for key, value in chunks.items():
        info.add_text(key, value)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def test_a_picture_that_says_all(run: Run):
    said = {"positive_prompt": "a wolf", "seed": 1, "steps": 9, "scheduler": "euler", "model": {"name": "v1-5"}}
    with_chunks("theirs.png", invokeai_metadata=json.dumps(said))
    facts = json.loads(run("info", "theirs.png", "--json").stdout)
    assert (facts["missing"], facts["not read"]) == ([], [])
    assert facts["replay"] == "yes, with the model v1-5, as near as InvokeAI can be followed"


@pytest.mark.parametrize("chunk", ["fromnoise", "invokeai_metadata", "prompt"])
def test_damaged_settings_stop_nothing(run: Run, chunk: str):
    with_chunks("broken.png", **{chunk: "{"})
    result = run("info", "broken.png", "--json")
    facts = json.loads(result.stdout)
    assert result.code == 0
    assert facts["format"] == "PNG"
    assert len(facts["missing"]) == 1
    assert facts["replay"] == "no: its settings can't be read"
    assert "can't be read" in run("info", "broken.png").stdout.decode()


def test_settings_that_look_like_our_facts(run: Run):
    said = {"prompt": "a", "steps": 3, "bytes": "many", "picture": {"x": 1}, "size": 3, "parameters": "all"}
    with_chunks("theirs.png", diffusers=json.dumps(said))
    assert json.loads(run("info", "theirs.png", "--json").stdout)["size"] == "8x8"
    assert b"many" in run("info", "theirs.png").stdout


def test_a_picture_without_settings(run: Run):
    Image.new("RGB", (8, 4)).save("plain.png")
    result = run("info", "plain.png", "--json")
    assert json.loads(result.stdout) == {"picture": "plain.png", "format": "PNG", "size": "8x4", "settings": None}


def test_neither(run: Run, tiny_model: Path, empty_folder: Path):
    assert is_one_line(run("info", "none.png"), 2, "can't read none.png")
    assert is_one_line(run("info", empty_folder), 2, "model_index.json")
    broken = shutil.copytree(tiny_model, empty_folder / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    assert is_one_line(run("info", broken), 1, "is damaged")


def test_the_size_of_the_file_and_of_what_was_drawn(draw: Run, run: Run):
    assert draw("a", "--hires", 2, "-o", "a.png").code == 0
    facts = json.loads(run("info", "a.png", "--json").stdout)
    assert (facts["size"], facts["drawn at"]) == ("32x32", "16x16")
    assert json.loads(run("info", "-", "--json", stdin=Path("a.png").read_bytes()).stdout)["size"] == "32x32"


def test_what_a_stranger_wrote_does_not_steer_the_terminal(run: Run):
    chunks = PngInfo()
    chunks.add_text("parameters", "a \x1b[31mwolf\x07\nSteps: 3, Seed: 1")
    Image.new("RGB", (8, 8)).save("a.png", pnginfo=chunks)
    shown = run("info", "a.png").stdout.decode()
    assert "wolf" in shown
    assert not {"\x1b", "\x07"} & set(shown)
