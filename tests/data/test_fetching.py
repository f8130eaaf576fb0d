import shutil

import pytest

from fromnoise.data import fetching
from fromnoise.data.fetching import UnreachableError, fetch, members
from fromnoise.data.sources import Package
from fromnoise.runtime.errors import FromnoiseError

PACKAGE = Package("@scope/icons", "1.2.3", "sha512-", "A. Person", "MIT", "https://example.org")


def client(monkeypatch, *command):
    monkeypatch.setattr(fetching, "CLIENT", command)


def test_what_is_in_the_cache_is_not_fetched_again(cache, pack, monkeypatch):
    package = pack(cache, PACKAGE, {"icons.json": "{}"})
    client(monkeypatch, "false")
    assert fetch(package, cache) == cache / "scope-icons-1.2.3.tgz"
    assert list(members(fetch(package, cache), ".json")) == [("package/icons.json", b"{}")]


def test_a_fetched_archive_is_kept_when_its_hash_is_right(tmp_path, cache, pack, monkeypatch):
    package = pack(cache, PACKAGE, {"icons.json": "{}"})
    client(monkeypatch, "cp", str(cache / package.archive), ".")
    fetched = fetch(package, tmp_path / "new")
    assert fetched.read_bytes() == (cache / package.archive).read_bytes()


def test_an_archive_with_another_hash_is_neither_used_nor_kept(cache, monkeypatch):
    client(monkeypatch, "sh", "-c", "echo other > icons.tgz")
    with pytest.raises(FromnoiseError, match="not the file that was pinned"):
        fetch(PACKAGE, cache)
    assert not list(cache.iterdir())


def test_a_damaged_archive_in_the_cache_is_fetched_again(tmp_path, cache, pack, monkeypatch):
    package = pack(cache, PACKAGE, {"icons.json": "{}"})
    good = tmp_path / "good.tgz"
    shutil.copy(cache / package.archive, good)
    (cache / package.archive).write_bytes(b"damaged")
    client(monkeypatch, "cp", str(good), ".")
    assert fetch(package, cache).read_bytes() == good.read_bytes()


def test_a_missing_client_is_named(cache, monkeypatch):
    client(monkeypatch, "no-such-client")
    with pytest.raises(UnreachableError, match="no-such-client is not installed"):
        fetch(PACKAGE, cache)


def test_a_failing_client_gives_its_last_word(cache, monkeypatch):
    client(monkeypatch, "sh", "-c", "echo no such version >&2; exit 1")
    with pytest.raises(FromnoiseError, match="no such version"):
        fetch(PACKAGE, cache)


@pytest.mark.parametrize("said", ["", "\\n \\n"])
def test_a_client_that_fails_without_a_word_is_one_line(cache, monkeypatch, said):
    client(monkeypatch, "sh", "-c", f"printf '{said}' >&2; exit 1")
    with pytest.raises(FromnoiseError, match="it said nothing"):
        fetch(PACKAGE, cache)


def test_the_line_for_people_is_picked_from_what_npm_says(cache, monkeypatch):
    said = "npm error code E404\\nnpm error 404 Not Found - GET https://x\\nnpm error A complete log is in: /x"
    client(monkeypatch, "sh", "-c", f"printf '{said}' >&2; exit 1")
    with pytest.raises(FromnoiseError, match=r"\(404 Not Found - GET https://x\)") as raised:
        fetch(PACKAGE, cache)
    assert not isinstance(raised.value, UnreachableError)


def test_a_network_that_is_not_there_is_told_from_other_failures(cache, monkeypatch):
    client(monkeypatch, "sh", "-c", "echo npm error code ENOTFOUND >&2; exit 1")
    with pytest.raises(UnreachableError, match="ENOTFOUND"):
        fetch(PACKAGE, cache)


def test_a_client_that_hangs_is_given_up(cache, monkeypatch):
    monkeypatch.setattr(fetching, "_PATIENCE_S", 0.1)
    client(monkeypatch, "sleep", "20")
    with pytest.raises(UnreachableError, match="gave no answer"):
        fetch(PACKAGE, cache)


def test_a_client_that_leaves_a_folder_left_no_archive(cache, monkeypatch):
    client(monkeypatch, "mkdir", "package")
    with pytest.raises(FromnoiseError, match="not the file that was pinned"):
        fetch(PACKAGE, cache)


def test_what_is_fetched_is_named(tmp_path, cache, pack, monkeypatch, caplog):
    package = pack(cache, PACKAGE, {"icons.json": "{}"})
    client(monkeypatch, "cp", str(cache / package.archive), ".")
    with caplog.at_level("INFO", "fromnoise"):
        fetch(package, tmp_path / "new")
    assert "fetching @scope/icons 1.2.3" in caplog.text
