import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from fromnoise.adapters import Embedding, write_embedding
from fromnoise.hub.names import Name
from fromnoise.hub.pulling import pull
from fromnoise.hub.pushing import plan, push
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from tests.hub.server import TOKEN, Hub, Repository
from tests.tiny import write_controlnet

HERE = "me/tiny"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "mine"))


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "watercolour.safetensors"
    layer = "lora_unet_down_blocks_0_attentions_0_proj_in"
    factors = {f"{layer}.lora_down.weight": torch.ones(2, 320), f"{layer}.lora_up.weight": torch.ones(320, 2)}
    folders = json.dumps({"wc": {"img_count": 7, "n_repeats": 3}})
    metadata = {"ss_network_dim": "2", "ss_dataset_dirs": folders, "modelspec.license": "cc-by-4.0"}
    save_file({**factors, f"{layer}.alpha": torch.tensor(2.0)}, path, metadata)
    return path


@pytest.mark.parametrize("source", ["tiny", "embedded"])
def test_what_was_pushed_comes_back_the_same(hub: Hub, logged_in: str, folder: Path, source: str):
    path = folder if source == "tiny" else EMBEDDED_MODEL
    address = push(plan(path, HERE, "apache-2.0"))
    assert address == f"{hub.url}/{HERE}"
    back = pull(Name(HERE)).here.files
    sent = {each.relative_to(path).as_posix(): each for each in path.rglob("*") if each.is_file()}
    assert set(back) == set(sent)
    assert all(back[name].read_bytes() == sent[name].read_bytes() for name in sent)
    assert pull(Name(HERE)).licence == "apache-2.0"


def test_a_card_is_written(hub: Hub, logged_in: str, folder: Path):
    (folder / "recipe.toml").write_text('steps = 12\n[optimiser]\nrate = 0.001\ndata = "monsters|imps"\n')
    (folder / "report.json").write_text('{"accuracy": {"top5": 0.8125}}')
    (folder / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "samples" / "wolf.png")
    push(plan(folder, HERE, "openrail"))
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "openrail"
    assert {"stable-diffusion", "text-to-image"} <= set(card.data.tags or ())
    for words in (
        "| steps | 12 |",
        "| optimiser.rate | 0.001 |",
        "monsters\\|imps",
        "| accuracy.top5 | 0.8125 |",
        "![samples/wolf.png](samples/wolf.png)",
        'fromnoise "a picture" --model me/tiny',
        "| unet | UNet2DConditionModel, ",
        "## Training data\n\nNot known",
    ):
        assert words in card.text
    assert hub.repositories[HERE].files["README.md"] == (folder / "README.md").read_bytes()


def test_an_adapter_states_its_licence_and_data(hub: Hub, logged_in: str, lora: Path):
    prepared = plan(lora, "me/watercolour")
    assert prepared.licence == "cc-by-4.0"
    assert prepared.card is not None
    assert "- wc: 7 pictures, each 3 times" in prepared.card
    assert "| rank | 2 |" in prepared.card
    assert "--lora me/watercolour:0.8" in prepared.card
    push(prepared)
    assert set(hub.repositories["me/watercolour"].files) == {"README.md", "watercolour.safetensors"}
    assert not (lora.parent / "README.md").exists()


def test_an_embedding(tmp_path: Path):
    path = tmp_path / "sks.safetensors"
    write_embedding(path, Embedding("<sks>", {"": torch.ones(2, 32)}))
    card = plan(path, "me/sks", "mit").card
    assert card is not None
    assert "A textual inversion: the word `" in card
    assert "--embedding me/sks" in card


def test_a_card_of_ones_own_is_kept(folder: Path):
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    assert (plan(folder, HERE).card, plan(folder, HERE).licence) == (None, "mit")
    (folder / "README.md").write_text("---\ntags: [a]\n---\nMine.\n")
    with pytest.raises(UsageError, match="under which licence"):
        plan(folder, HERE)
    assert plan(folder, HERE, "mit").card == "---\nlicense: mit\ntags: [a]\n---\nMine.\n"


def test_a_card_that_states_no_licence_in_other_ways(folder: Path):
    card, kept = folder / "README.md", "---\nlicense: mit\ntags: [a]\n---\nMine.\n"
    for head in ("\ufeff---\ntags: [a]\n---\n", "---\nlicense:\ntags: [a]\n---\n", "---\r\ntags: [a]\r\n---\r\n"):
        card.write_bytes(f"{head}Mine.\n".encode())
        assert plan(folder, HERE, "mit").card == kept
    card.write_text("Mine.\n---\nlicense: mit\n")
    assert plan(folder, HERE, "mit").card == "---\nlicense: mit\n---\n\nMine.\n---\nlicense: mit\n"
    card.write_bytes("# modèle\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"README\.md is not in UTF-8"):
        plan(folder, HERE, "mit")


def test_another_licence_than_stated_is_refused(folder: Path, lora: Path):
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    with pytest.raises(UsageError, match=r"mine states the licence mit, not apache-2\.0; leave --licence out"):
        plan(folder, HERE, "apache-2.0")
    assert plan(folder, HERE, "MIT").card is None
    with pytest.raises(UsageError, match=r"watercolour\.safetensors states the licence cc-by-4\.0, not mit"):
        plan(lora, HERE, "mit")


def test_a_card_is_written_only_when_the_hub_took_it(
    hub: Hub, logged_in: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(*given: object, **named: object) -> None:
        raise ValueError("Invalid metadata in README.md.\n- license must be one of mit")

    with monkeypatch.context() as patched:
        patched.setattr(HfApi, "create_commit", refused)
        with pytest.raises(FromnoiseError, match="me/tiny was refused: Invalid metadata"):
            push(plan(folder, HERE, "Apache"))
    assert not (folder / "README.md").exists()
    push(plan(folder, HERE, "apache-2.0"))
    assert "license: apache-2.0" in (folder / "README.md").read_text()


def test_a_card_on_the_hub_stays(hub: Hub, logged_in: str, folder: Path, caplog: pytest.LogCaptureFixture):
    edited = b"---\nlicense: mit\n---\nEdited there.\n"
    hub.repositories[HERE] = Repository({"README.md": edited})
    with pytest.raises(UsageError, match=r"README\.md of me/tiny states the licence mit, not openrail"):
        push(plan(folder, HERE, "openrail"))
    assert set(hub.repositories[HERE].files) == {"README.md"}
    with caplog.at_level(logging.INFO, "fromnoise"):
        push(plan(folder, HERE, "mit"))
    assert "me/tiny has a README.md already; it stays as it is" in caplog.text
    assert hub.repositories[HERE].files["README.md"] == edited
    assert "model_index.json" in hub.repositories[HERE].files
    assert not (folder / "README.md").exists()
    (folder / "README.md").write_text("---\nlicense: openrail\n---\nMine.\n")
    push(plan(folder, HERE))
    assert b"Mine." in hub.repositories[HERE].files["README.md"]


def test_a_card_for_another_repository_is_noted(
    hub: Hub, logged_in: str, folder: Path, caplog: pytest.LogCaptureFixture
):
    push(plan(folder, HERE, "mit"))
    with caplog.at_level(logging.INFO, "fromnoise"):
        plan(folder, HERE)
        assert "tells to pull" not in caplog.text
        plan(folder, "me/other")
    assert "README.md tells to pull me/tiny, not me/other" in caplog.text


@pytest.mark.parametrize(
    ("part", "flag"),
    [("controlnet", "--control me/part=picture.png"), ("vae", "--vae me/part"), ("unet", "--unet me/")],
)
def test_the_card_of_a_part(tiny_model: Path, tmp_path: Path, part: str, flag: str):
    path = write_controlnet(tmp_path / "part") if part == "controlnet" else tiny_model / part
    card = plan(path, "me/part", "mit").card
    assert card is not None
    assert f'fromnoise "a picture" --model MODEL {flag}' in card
    assert "text-to-image" not in card


def test_planning_writes_and_sends_nothing(hub: Hub, folder: Path):
    before = sorted(folder.rglob("*"))
    plan(folder, HERE, "mit")
    assert sorted(folder.rglob("*")) == before
    assert hub.requests == []


@pytest.mark.parametrize("name", ["unet/old.ckpt", "checkpoint.pt", "a.BIN", "x.pkl"])
def test_pickles_are_refused(folder: Path, name: str):
    (folder / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match=f"{name} may carry code"):
        plan(folder, HERE, "mit")


def test_a_pickle_under_another_name_and_a_token_are_refused(folder: Path):
    for name in ("notes.txt", "train.ipynb", "train.sh", "notes.html", "Makefile", "a.tsv"):
        (folder / name).write_text(f'"login\\n{TOKEN}"')
        with pytest.raises(UsageError, match=rf"{name} holds what looks like a token") as caught:
            plan(folder, HERE, "mit")
        assert TOKEN not in str(caught.value)
        (folder / name).write_bytes(b"")
    torch.save({"a": torch.ones(1)}, folder / "extra.safetensors")
    with pytest.raises(FromnoiseError, match=r"extra\.safetensors is damaged or no safetensors"):
        plan(folder, HERE, "mit")


def test_metadata_tells_no_token_and_no_place(lora: Path, folder: Path):
    with safe_open(lora, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, lora, {"ss_sd_model_name": "/home/jane/secret/base.safetensors", "base_model": "/home/jane/b"})
    card = plan(lora, HERE, "mit").card
    assert card is not None
    assert "| base checkpoint | base.safetensors |" in card
    assert "jane" not in card
    save_file(tensors, lora, {"modelspec.description": f"trained by {TOKEN}"})
    with pytest.raises(UsageError, match=r"watercolour\.safetensors holds what looks like a token"):
        plan(lora, HERE, "mit")
    with pytest.raises(UsageError, match=r"the README\.md to write would hold what looks like a token") as caught:
        plan(folder, HERE, "mit", data=f"pictures of {TOKEN}")
    assert TOKEN not in str(caught.value)


def test_what_is_no_model_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="nothing at"):
        plan(tmp_path / "nowhere", HERE, "mit")
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(UsageError, match="is empty"):
        plan(tmp_path, HERE, "mit")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FromnoiseError, match="holds no model, adapter or embedding"):
        plan(tmp_path, HERE, "mit")


def test_nobody_logged_in(hub: Hub, folder: Path):
    with pytest.raises(UsageError, match="needs an account: log in with `hf auth login`, or set HF_TOKEN"):
        push(plan(folder, HERE, "mit"))
    assert hub.requests == []


def test_a_refused_token(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch):
    wrong = "hf_" + "w" * 34
    monkeypatch.setenv("HF_TOKEN", wrong)
    with pytest.raises(FromnoiseError, match=r"log in|does not accept the token") as caught:
        push(plan(folder, HERE, "mit"))
    assert wrong not in str(caught.value)


def test_what_the_hub_has_is_not_sent_again(hub: Hub, logged_in: str, folder: Path):
    push(plan(folder, HERE, "mit"))
    hub.requests.clear()
    (folder / "model_index.json").write_text((folder / "model_index.json").read_text() + "\n")
    push(plan(folder, HERE))
    assert [method for method, *_ in hub.requests if method == "PUT"] == []
    assert hub.repositories[HERE].files["model_index.json"].endswith(b"\n\n")


def test_what_arrives_otherwise_is_noticed(hub: Hub, logged_in: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    weights = (folder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    from tests.hub.server import sha256

    hub.objects[sha256(weights)] = weights[:-1] + b"x"
    with pytest.raises(FromnoiseError, match=r"vae/.*arrived at me/tiny with another hash"):
        push(plan(folder, HERE, "mit"))


def test_a_private_repository(hub: Hub, logged_in: str, folder: Path):
    push(plan(folder, HERE, "mit"), private=True)
    assert hub.repositories[HERE].private
    hub.repositories[HERE].private = False
    before = dict(hub.repositories[HERE].files)
    (folder / "secret.txt").write_text("x")
    with pytest.raises(UsageError, match="me/tiny is public already; make it private on its settings page first"):
        push(plan(folder, HERE), private=True)
    assert hub.repositories[HERE].files == before
