import traceback
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import fromnoise
from fromnoise.hub import client, found, name_of, pulling
from fromnoise.hub.client import UnreachableError
from fromnoise.hub.names import Name, require_name
from fromnoise.hub.pulled import pulled, repository_folder, unfinished
from fromnoise.hub.pulling import pull
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from tests.hub.server import LARGE, TOKEN, Hub, Repository, serving, sha256
from tests.hub.standing_in import published

NAME = Name("some-one/tiny")
UNET = "unet/diffusion_pytorch_model.safetensors"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def tiny(hub: Hub, tiny_model: Path) -> Repository:
    return published(hub, NAME.repository, tiny_model)


def test_a_model_arrives_bit_by_bit_and_is_told(tiny: Repository):
    told: list[tuple[int, int]] = []
    fetched = pull(NAME, show=lambda done, total: told.append((done, total)))
    assert content(fetched.here.folder) == tiny.files
    assert (fetched.licence, fetched.here.commit) == ("apache-2.0", tiny.commit)
    assert fetched.size == fetched.fetched == sum(map(len, tiny.files.values()))
    assert told[-1] == (fetched.size, fetched.size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_embedded_model_arrives_whole(hub: Hub):
    held = published(hub, "some-one/embedded", EMBEDDED_MODEL)
    assert content(pull(Name("some-one/embedded")).here.folder) == held.files


def test_the_clients_own_reader_finds_it(tiny: Repository):
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    pull(NAME)
    cached = try_to_load_from_cache(NAME.repository, UNET, cache_dir=constants.HF_HUB_CACHE)
    assert Path(str(cached)).read_bytes() == tiny.files[UNET]
    assert snapshot_download(NAME.repository, cache_dir=constants.HF_HUB_CACHE, local_files_only=True)


def test_what_the_client_fetched_is_not_fetched_again(hub: Hub, tiny: Repository):
    from fromnoise.hub.hashing import digest

    blob = repository_folder(NAME.repository) / "blobs" / sha256(tiny.files[UNET])
    blob.parent.mkdir(parents=True)
    blob.write_bytes(tiny.files[UNET])
    assert digest(blob) == blob.name
    fetched = pull(NAME)
    assert fetched.fetched == fetched.size - len(tiny.files[UNET])


def test_a_second_pull_fetches_nothing(hub: Hub, tiny: Repository):
    pull(NAME)
    hub.requests.clear()
    assert pull(NAME).fetched == 0
    assert hub.downloads() == []


def test_a_newer_commit_fetches_only_what_changed(hub: Hub, tiny: Repository):
    before = pull(NAME).here
    tiny.files["model_index.json"] += b"\n"
    after = pull(NAME)
    assert after.fetched == len(tiny.files["model_index.json"])
    assert pulled(NAME) == after.here
    assert content(before.folder)["model_index.json"] + b"\n" == tiny.files["model_index.json"]


def test_a_broken_line_is_picked_up(hub: Hub, tiny: Repository):
    hub.breaks = [7000, 100]
    fetched = pull(NAME)
    assert content(fetched.here.folder) == tiny.files
    assert fetched.fetched == fetched.size
    assert sum(asked is not None and asked != "bytes=0-" for _, asked in hub.downloads()) == 2


def test_a_stopped_pull_goes_on_where_it_was(hub: Hub, tiny: Repository):
    def stop(done: int, total: int) -> None:
        if done > 0.7 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(NAME, show=stop)
    assert pulled(NAME) is None
    kept = sum(path.stat().st_size for path in (repository_folder(NAME.repository) / "blobs").iterdir())
    assert kept > 0
    fetched = pull(NAME)
    assert fetched.fetched == fetched.size - kept
    assert content(fetched.here.folder) == tiny.files


def test_a_line_that_stays_broken_keeps_what_came(hub: Hub, tiny: Repository):
    hub.breaks = [5000] + [0] * pulling.ATTEMPTS
    with pytest.raises(UnreachableError, match=r"stopped sending .* at 5000 of \d+ bytes; they are kept"):
        pull(NAME)
    assert list(unfinished()) == [(NAME.repository, 5000)]
    hub.breaks = []
    assert pull(NAME).fetched < sum(map(len, tiny.files.values()))
    assert list(unfinished()) == []


def test_a_server_without_ranges(hub: Hub, tiny: Repository):
    hub.ranges, hub.breaks = False, [7000]
    assert content(pull(NAME).here.folder) == tiny.files


@pytest.mark.parametrize("file", [UNET, "model_index.json"])
def test_a_changed_byte_is_noticed(hub: Hub, tiny: Repository, file: str):
    hub.corrupt = file
    with pytest.raises(FromnoiseError, match=f"{file} of {NAME} arrived damaged .* pull again"):
        pull(NAME)
    assert pulled(NAME) is None
    hub.corrupt = None
    assert content(pull(NAME).here.folder) == tiny.files


def test_a_byte_changed_on_disk_is_mended(hub: Hub, tiny: Repository):
    folder = pull(NAME).here.folder
    blob = (folder / UNET).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    assert pull(NAME).fetched == len(tiny.files[UNET])
    assert content(folder) == tiny.files


def test_offline_with_and_without_it(tiny: Repository, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UnreachableError, match="some-one/tiny is not here yet, and offline mode is on; unset HF_HUB_OF"
    ):
        pull(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = pull(NAME).here.folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = pull(NAME)
    assert (again.here.folder, again.checked, again.fetched) == (folder, False, 0)
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("", {"patterns": ["*.ckpt"]}, r"no file is called \*\.ckpt; .*"),
        ("/other.safetensors", {}, r"no file is called other\.safetensors; .*"),
        ("", {"variant": "fp16"}, "it has no fp16 variant; there is none"),
    ]
    for file, given, lacking in asked:
        with pytest.raises(UnreachableError, match=rf"not all of some-one/tiny.* is here yet \({lacking}\), and offl"):
            pull(require_name(f"{NAME}{file}"), **given)
    assert pull(require_name(f"{NAME}/{UNET}")).size < again.size


def test_a_lone_file_offline_and_in_another_variant(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    hub.repositories["a/lora"] = Repository({"wolf.safetensors": b"w" * LARGE})
    with caplog.at_level("INFO", "fromnoise"):
        pull(Name("a/lora"), variant="fp16")
    assert "it has no fp16 weights; taking wolf.safetensors" in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(Name("a/lora")).size == LARGE
    with pytest.raises(UnreachableError, match=r"\(no fp16 weights\), and offline mode is on"):
        pull(Name("a/lora"), variant="fp16")


@pytest.mark.parametrize("name", ["me/x.git", f"me/{'b' * 97}", f"{'b' * 97}/me", "me/x.git/a.safetensors", "me/a--b"])
def test_names_that_the_hub_refuses(name: str):
    with pytest.raises(UsageError, match="is no name on the hub"):
        require_name(name)


def test_a_name_at_a_pull_request():
    assert require_name("me/x@refs/pr/12") == Name("me/x", "refs/pr/12")
    assert require_name("me/x@refs/pr/12/a/b.bin") == Name("me/x", "refs/pr/12", "a/b.bin")
    assert require_name("me/x@v1/a.bin") == Name("me/x", "v1", "a.bin")


@pytest.mark.parametrize("address", ["http://[bad", "http://127.0.0.1:99999", "foo", ""])
def test_an_endpoint_that_is_none(tiny: Repository, monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    with pytest.raises(FromnoiseError, match=r"^HF_ENDPOINT or HF_TOKEN can't be used; check|no answer from"):
        pull(NAME)


def test_a_token_that_is_none(tiny: Repository, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_é")
    with pytest.raises(UsageError, match=r"^HF_ENDPOINT or HF_TOKEN can't be used; check what they are set to$"):
        pull(NAME)


def test_a_name_that_only_the_client_refuses(hub: Hub):
    with pytest.raises(UsageError, match=r"'me/x\.git' is no name on the hub"):
        pull(Name("me/x.git"))


def test_no_network(tiny: Repository, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://user:secret@127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"not here yet, and no answer from http://127.0.0.1:9 \(ConnectError\)"):
        pull(NAME)


def test_files_by_pattern(tiny: Repository):
    fetched = pull(NAME, patterns=["vae/*"])
    assert set(fetched.here.files) == {name for name in tiny.files if name.startswith("vae/")}
    assert set(pull(require_name(f"{NAME}/{UNET}")).here.files) >= {UNET, "vae/config.json"}


def test_missing_private_gated_and_unknown_revision(hub: Hub, tiny: Repository):
    with pytest.raises(UsageError, match=r"there is no some-one/else at http.*, or it is private: .* `hf auth login`"):
        pull(Name("some-one/else"))
    with pytest.raises(UsageError, match="some-one/tiny has no revision v9"):
        pull(Name(NAME.repository, "v9"))
    tiny.gated = True
    with pytest.raises(FromnoiseError, match=r"is gated: accept its conditions at http.*/some-one/tiny, then log in"):
        pull(NAME)


def test_a_private_model_needs_the_token(tiny: Repository, logged_in: str):
    tiny.private = True
    assert pull(NAME).here.commit == tiny.commit


def test_a_server_elsewhere_never_sees_the_token(hub: Hub, tiny: Repository, logged_in: str):
    elsewhere = Hub(hub.repositories)
    with serving(elsewhere) as url:
        hub.cdn = url
        assert content(pull(NAME).here.folder) == tiny.files
    assert elsewhere.downloads()
    assert {given for *_, given in elsewhere.requests} == {None}
    assert {given for _, path, _, given in hub.requests if "some-one" in path} == {f"Bearer {TOKEN}"}


def with_locals(error: BaseException) -> str:
    """The traceback below the test's own frame, every local variable in it."""
    assert error.__traceback__ is not None
    below = error.__traceback__.tb_next
    return "".join(traceback.TracebackException(type(error), error, below, capture_locals=True).format())


def test_the_token_is_in_no_error_and_no_file(hub: Hub, tiny: Repository, logged_in: str, tmp_path: Path):
    def failing(name: Name, **misbehaviour: object) -> str:
        for key, value in misbehaviour.items():
            setattr(tiny if hasattr(tiny, key) else hub, key, value)
        with pytest.raises(FromnoiseError) as caught:
            pull(name)
        return with_locals(caught.value)

    texts = [failing(Name("some-one/else")), failing(NAME, corrupt=UNET), failing(NAME, corrupt=None, gated=True)]
    assert all("_bring" in text or "clear" in text for text in texts)
    assert not any(TOKEN in text for text in texts)
    tiny.gated = False
    pull(NAME)
    assert {given for _, path, _, given in hub.requests if "some-one" in path} == {f"Bearer {TOKEN}"}
    assert not any(TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../evil", "C:evil", "a\\..\\evil"])
def test_a_file_outside_the_folder_is_refused(hub: Hub, tiny: Repository, name: str):
    tiny.files[name] = b"evil"
    with pytest.raises(FromnoiseError, match="would lie outside its folder"):
        pull(NAME)


def test_a_hash_that_is_none_is_refused(tiny: Repository, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Repository, "commit", "../../evil")
    with pytest.raises(FromnoiseError, match="does not answer as a hub does"):
        pull(NAME)


def test_a_full_disk_is_told_before(tiny: Repository, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pulling.shutil, "disk_usage", lambda path: type("", (), {"free": 1000}))
    with pytest.raises(FromnoiseError, match=r"GB to fetch, 0\.0 GB free"):
        pull(NAME)


@pytest.mark.parametrize("status", sorted(client.STATUSES))
def test_other_refusals_are_one_line(status: int):
    assert "\n" not in str(client._by_status(status, "a/b"))


def test_a_pulled_model_is_found_by_its_name_and_draws(tiny: Repository, tmp_path: Path):
    folder = pull(NAME).here.folder
    assert found("some-one/tiny") == folder
    assert found(f"some-one/tiny@{tiny.commit}") == folder
    assert found("some-one/tiny/unet") == folder / "unet"
    assert name_of(folder) == "some-one/tiny"
    pipe = fromnoise.load("some-one/tiny")
    picture = pipe("a wolf", steps=1, seed=0)[0]
    assert picture.request.model == "some-one/tiny"


def test_what_was_not_pulled_is_not_fetched(hub: Hub, tiny: Repository):
    with pytest.raises(UsageError, match="none was pulled; `fromnoise pull some-one/tiny` fetches it"):
        fromnoise.load("some-one/tiny")
    assert hub.requests == []


def test_a_path_that_exists_comes_first(tiny: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pull(NAME)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some-one" / "tiny").mkdir(parents=True)
    assert found("some-one/tiny") == Path("some-one/tiny")


def test_a_lone_adapter_and_several(hub: Hub):
    files = {"wolf.safetensors": b"w" * LARGE, "README.md": b"---\nlicense: mit\n---\n", "run.py": b"print()"}
    hub.repositories["a/lora"] = Repository(files)
    here = pull(Name("a/lora")).here
    assert set(here.files) == {"wolf.safetensors", "README.md"}
    assert found("a/lora") == here.folder / "wolf.safetensors"
    files["fox.safetensors"] = b"f" * LARGE
    with pytest.raises(
        UsageError, match=r"a/lora: it has several models; choose one with --file: fox\.safetensors, wolf"
    ):
        pull(Name("a/lora"))
    pull(Name("a/lora"), patterns=["*.safetensors"])
    with pytest.raises(UsageError, match=r"a/lora holds several files; name one: a/lora/fox\.safetensors, a/lora/wolf"):
        found("a/lora")
