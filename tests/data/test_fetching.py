import shutil

import pytest

from fromnoise.data import fetching
from fromnoise.data.fetching import fetch, members
from fromnoise.data.sources import Package
from fromnoise.runtime.errors import FromnoiseError

PACKAGE = Package("@scope/icons", "1.2.3", "sha512-", "A. Person", "MIT", "https://example.org")


def client(monkeypatch, *command):
    monkeypatch.setattr(fetching, "CLIENTS", {"npm": command})


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
    with pytest.raises(FromnoiseError, match="no-such-client is not installed"):
        fetch(PACKAGE, cache)


def test_a_failing_client_gives_its_last_word(cache, monkeypatch):
    client(monkeypatch, "sh", "-c", "echo no such version >&2; exit 1")
    with pytest.raises(FromnoiseError, match="no such version"):
        fetch(PACKAGE, cache)
