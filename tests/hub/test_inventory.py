import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fromnoise.hub import inventory
from fromnoise.hub.inventory import KOHYA, Model, damage, models
from fromnoise.hub.names import Name
from fromnoise.hub.pulled import pulled, repository_folder
from fromnoise.hub.pulling import pull
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from tests.hub.server import LARGE, Hub, Repository, sha256
from tests.hub.standing_in import published


def only(name: str, loras: Path | None = None) -> Model:
    return next(each for each in models(loras) if each.name == name)


def test_the_embedded_model_is_always_there(hub: Hub):
    [embedded] = models()
    assert (embedded.name, embedded.path, embedded.licence) == ("fromnoise", EMBEDDED_MODEL, "apache-2.0")
    weights = sorted(path for path in EMBEDDED_MODEL.rglob("*.safetensors"))
    hashes = [sha256(path.read_bytes()) for path in sorted(weights, key=lambda each: each.as_posix())]
    assert embedded.hash() == hashlib.sha256("".join(hashes).encode()).hexdigest()
    assert damage(embedded) == []


def test_what_was_pulled(hub: Hub, tiny_model: Path):
    held = published(hub, "a/tiny", tiny_model, None)
    held.files["README.md"] = b"---\nlicense: other\nlicense_name: my-own\n---\n"
    here = pull(Name("a/tiny")).here
    model = only("a/tiny")
    assert (model.kind, model.path, model.licence, model.state) == ("model", here.folder, "my-own", "")
    assert model.source == f"hub, main at {held.commit[:10]}"
    assert model.size == sum(map(len, held.files.values()))
    assert set(model.recorded) == set(held.files)
    assert damage(model) == []


def test_a_damaged_branch_is_as_if_it_were_not_there(hub: Hub, tiny_model: Path):
    held = published(hub, "a/tiny", tiny_model)
    pull(Name("a/tiny"))
    (repository_folder("a/tiny") / "refs" / "main").write_bytes(b"\xff\xfe")
    assert only("a/tiny").path.name == held.commit
    assert pulled(Name("a/tiny")) is None


def test_hashes_are_known_without_reading(hub: Hub):
    hub.repositories["a/lora"] = Repository({"wolf.safetensors": b"w" * LARGE})
    pull(Name("a/lora"))
    read: list[int] = []
    assert only("a/lora").hash(read.append) == sha256(b"w" * LARGE)
    assert read == []


@pytest.mark.parametrize("file", ["unet/config.json", "vae/diffusion_pytorch_model.safetensors"])
def test_a_changed_byte_and_a_lost_file_are_found(hub: Hub, tiny_model: Path, file: str):
    published(hub, "a/tiny", tiny_model)
    blob = (pull(Name("a/tiny")).here.folder / file).resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert damage(only("a/tiny")) == [file]
    blob.unlink()
    assert damage(only("a/tiny")) == [file]
    assert only("a/tiny").state == "1 files missing; pull again"
    pull(Name("a/tiny"))
    assert damage(only("a/tiny")) == []


def test_half_a_pull_is_told(hub: Hub):
    hub.repositories["a/lora"] = Repository({"wolf.safetensors": b"w" * LARGE})
    hub.breaks = [6000] + [0] * 9
    with pytest.raises(Exception, match="stopped sending"):
        pull(Name("a/lora"))
    assert (only("a/lora").state, only("a/lora").size) == ("not all here; pull again", 6000)


def test_models_of_other_kinds_are_left_out(hub: Hub):
    folder = repository_folder("a/language-model") / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"x")
    assert [each.name for each in models()] == ["fromnoise"]


def test_adapters_in_a_folder(hub: Hub, tmp_path: Path):
    folder = tmp_path / "loras"
    folder.mkdir()
    save_file({"a": torch.ones(4)}, folder / "cat.safetensors")
    body = (folder / "cat.safetensors").read_bytes()
    body = body[8 + int.from_bytes(body[:8], "little") :]
    save_file({"a": torch.ones(4)}, folder / "cat.safetensors", {KOHYA: hashlib.sha256(body).hexdigest()})
    cat = only("cat", folder)
    assert (cat.kind, cat.hash()) == ("adapter", sha256((folder / "cat.safetensors").read_bytes()))
    assert damage(cat) == []
    (folder / "cat.safetensors").write_bytes((folder / "cat.safetensors").read_bytes()[:-1] + b"x")
    assert damage(only("cat", folder)) == ["cat.safetensors"]
    with pytest.raises(UsageError, match="no folder"):
        models(tmp_path / "nowhere")


def test_an_installed_model_is_compared_with_what_the_installer_noted(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    import base64
    from importlib.metadata import FileHash
    from types import SimpleNamespace

    path = EMBEDDED_MODEL / "model_index.json"

    def noting(content: bytes) -> None:
        value = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        noted = SimpleNamespace(hash=FileHash(f"sha256={value}"), locate=lambda: path)
        monkeypatch.setattr(inventory, "files", lambda name: [noted])
        monkeypatch.setattr(inventory, "version", lambda name: "1.0")

    noting(path.read_bytes())
    assert damage(only("fromnoise")) == []
    noting(b"another")
    assert damage(only("fromnoise")) == ["model_index.json"]
