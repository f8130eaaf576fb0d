from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fromnoise.engines.cache import MANIFEST, Store, key_of

DEPENDS = {"weights": "abc", "inputs": [[2, 4, 8, 8]]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "engines")


def write(folder: Path) -> dict[str, float]:
    (folder / "model.blob").write_bytes(b"compiled")
    return {"difference": 0.25}


def test_what_was_made_is_found_with_its_facts(store: Store) -> None:
    made = store.make(DEPENDS, write)
    found = store.find(DEPENDS)
    assert store.has(DEPENDS) and found == made
    assert found.facts == {"difference": 0.25} and (found.folder / "model.blob").read_bytes() == b"compiled"


def test_another_dependency_is_another_entry(store: Store) -> None:
    store.make(DEPENDS, write)
    assert store.find({**DEPENDS, "weights": "abd"}) is None
    assert key_of(DEPENDS) == key_of(dict(reversed(DEPENDS.items())))


@pytest.mark.parametrize("damage", ["changed", "gone", "manifest", "no manifest"])
def test_a_damaged_entry_is_said_and_removed(store: Store, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = store.make(DEPENDS, write).folder
    match damage:
        case "changed":
            (folder / "model.blob").write_bytes(b"compileD")
        case "gone":
            (folder / "model.blob").unlink()
        case "manifest":
            (folder / MANIFEST).write_text("[1]")
        case _:
            (folder / MANIFEST).unlink()
    with caplog.at_level(logging.WARNING, "fromnoise"):
        assert store.find(DEPENDS) is None
    assert "damaged" in caplog.text and not folder.exists()
    assert store.make(DEPENDS, write).facts == {"difference": 0.25}


def test_a_failure_while_making_leaves_nothing(store: Store) -> None:
    def fail(folder: Path) -> dict[str, float]:
        write(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.make(DEPENDS, fail)
    assert store.find(DEPENDS) is None and list(store.folder.iterdir()) == []
