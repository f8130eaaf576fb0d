"""Adapters by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fromnoise.adapters import find_adapter
from fromnoise.runtime.errors import UsageError


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    for name in (
        "one/wolf.safetensors",
        "one/wolf.pt",
        "one/deep/oil.v2.safetensors",
        "two/wolf.safetensors",
        "two/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "secret.safetensors").touch()
    return [tmp_path / "one", tmp_path / "two", tmp_path / "absent"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("wolf", "one/wolf.safetensors"),
        ("wolf.pt", "one/wolf.pt"),
        ("oil.v2", "one/deep/oil.v2.safetensors"),
        ("oil.v2.safetensors", "one/deep/oil.v2.safetensors"),
    ],
)
def test_with_and_without_its_ending(name: str, file: str, folders: list[Path]) -> None:
    assert find_adapter(name, folders) == folders[0].parent / file


@pytest.mark.parametrize("name", ["../secret", "deep/oil.v2", "notes", "", "Wolf"])
def test_what_is_not_there(name: str, folders: list[Path]) -> None:
    with pytest.raises(UsageError, match="no adapter called"):
        find_adapter(name, folders)


def test_close_names_are_told(folders: list[Path]) -> None:
    with pytest.raises(UsageError, match="did you mean wolf"):
        find_adapter("wolfe", folders)
    with pytest.raises(UsageError, match=r"there are oil\.v2, wolf$"):
        find_adapter("zzz", folders)
    with pytest.raises(UsageError, match="there are none"):
        find_adapter("zzz", folders[2:])
