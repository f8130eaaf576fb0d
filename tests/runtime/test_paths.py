"""A file is whole or absent, whatever the file system and whatever its name."""

import os
from pathlib import Path

import pytest

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import NameTakenError, file_state, require_name, require_writable, write_whole


def without_links(*arguments: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_never_over_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool):
    if not links:  # as on memory cards and some network folders
        monkeypatch.setattr(os, "link", without_links)
    path = write_whole(tmp_path / "new" / "a.png", b"one")
    with pytest.raises(NameTakenError, match=r"a\.png exists; choose another name"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
    assert write_whole(path, b"two", overwrite=True).read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_the_state_of_a_folder_is_that_of_its_files(tmp_path: Path):
    file = write_whole(tmp_path / "model" / "a.bin", b"one")
    before = file_state(file.parent)
    assert file_state(file.parent) == before
    file.write_bytes(b"two")  # in its place: the folder itself does not change
    os.utime(file, ns=(1, 1))
    assert file_state(file.parent) != before


def test_the_longest_name(tmp_path: Path):
    name = "a" * (255 - len(".png")) + ".png"
    assert write_whole(tmp_path / name, b"one").read_bytes() == b"one"


@pytest.mark.parametrize("check", [require_name, require_writable])
def test_names_that_no_file_can_have(tmp_path: Path, check):
    with pytest.raises(UsageError, match=r"^can't write a{40}…: .*; choose another name$"):
        check(tmp_path / ("a" * 300 + ".png"))
    with pytest.raises(UsageError, match="choose another name"):
        check(tmp_path / "a\0.png")
    assert not any(tmp_path.iterdir())
