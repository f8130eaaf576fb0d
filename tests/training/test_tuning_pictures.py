"""Captions from everywhere that people keep them, and clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fromnoise.runtime.errors import UsageError
from fromnoise.training.tuning.pictures import Captioned, read_captioned, require_captions
from fromnoise.training.tuning.words import spread, worded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "notes.md"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    return tmp_path


def test_captions_beside(folder: Path) -> None:
    (folder / "b.txt").write_text(" a  cat\n")
    assert read_captioned([folder]) == [Captioned(folder / "a.jpg"), Captioned(folder / "b.png", "a cat")]
    assert read_captioned([folder / "b.png"]) == [Captioned(folder / "b.png", "a cat")]
    with pytest.raises(UsageError, match=r"a\.jpg has no caption; write a\.txt"):
        require_captions(read_captioned([folder]), "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '{"file_name": "b.png", "text": "a cat, sitting"}\n\n{"file_name": "a.jpg", "text": "x"}\n'),
        ("metadata.csv", 'file_name,text\nb.png,"a cat, sitting"\na.jpg,x\n'),
        ("captions.jsonl", '{"image": "b.png", "caption": "a cat, sitting"}\n{"file": "a.jpg", "prompt": "x"}\n'),
        ("captions.csv", 'caption,image\n"a cat, sitting",b.png\nx,a.jpg\n'),
    ],
)
def test_tables(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    source = folder if name.startswith("metadata") else folder / name
    assert read_captioned([source]) == [Captioned(folder / "b.png", "a cat, sitting"), Captioned(folder / "a.jpg", "x")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "\ufefffile_name,text\r\nb.png,a cat\r\n"),
        ("metadata.jsonl", '\ufeff{"file_name": "b.png", "text": "a cat"}\r\n'),
        ("metadata.jsonl", '{"file_name": "b.png", "text": "a\u2028cat"}\n'),
        ("metadata.csv", "file_name,text\nb.png,a\u2028cat\n"),
        ("metadata.csv", 'file_name,text\nb.png,"a\ncat"\n'),
        ("b.txt", "\ufeffa cat"),
    ],
    ids=["csv with a mark", "json with a mark", "json", "csv", "csv in quotes", "text with a mark"],
)
def test_marks_at_the_beginning_and_ends_of_lines_inside(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    assert Captioned(folder / "b.png", "a cat") in read_captioned([folder])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "every line should be a JSON object"),
        ("{", "can't read"),
        ('{"text": "x"}', "entry 1 names no picture"),
        ('{"file_name": "c.png"}', "names c.png, which is not there"),
        ("", "no pictures in"),
    ],
)
def test_bad_tables(folder: Path, text: str, words: str) -> None:
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_captioned([folder])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures in"):
        read_captioned([tmp_path])
    with pytest.raises(UsageError, match="there is nothing at"):
        read_captioned([tmp_path / "x"])


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(UsageError, match=r"broken\.png"):
        read_captioned([tmp_path])[0].open()


def test_words_for_a_token() -> None:
    assert all("<x>" in each for each in worded(None, "<x>"))
    assert worded("a cat and <X>", "<x>") == ("a cat and <X>",)
    assert "a cat, <x> style" in worded("a cat", "<x>", style=True)
    assert worded("a cat", "<x>") == worded(None, "<x>")


def test_texts_are_spread() -> None:
    assert spread(("a", "a", "a", "b", "c", "d", "e", "f"), 3) == ("a", "c", "e")
    assert spread(("a", "a"), 3) == ("a",)
