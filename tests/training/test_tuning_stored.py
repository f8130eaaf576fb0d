"""Datasets of Hugging Face's library on disk, written by that library itself."""

from __future__ import annotations

import sys
from pathlib import Path

import datasets
import pytest
from PIL import Image
from pyarrow.parquet import write_table

from fromnoise.runtime.errors import UsageError
from fromnoise.training.tuning.pictures import read_captioned, require_captions

COLORS = ("red", "lime", "blue")


def rows(text: str = "text", **more: list[str]) -> datasets.Dataset:
    pictures = [Image.new("RGB", (6, 4), color) for color in COLORS]
    columns = {"image": pictures, text: ["a  red\nflag", "", "a blue flag"], **more}
    texts = {name: datasets.Value("string") for name in (text, *more)}
    return datasets.Dataset.from_dict(columns, features=datasets.Features({"image": datasets.Image(), **texts}))


def parquet(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    rows().to_parquet(folder / "data" / "train-00000-of-00001.parquet")


WAYS = {
    "saved": lambda folder: rows().save_to_disk(folder),
    "splits": lambda folder: datasets.DatasetDict(test=rows().select([0]), train=rows()).save_to_disk(folder),
    "one split": lambda folder: datasets.DatasetDict(all=rows()).save_to_disk(folder),
    "another name": lambda folder: rows("said").save_to_disk(folder),
    "caption first": lambda folder: rows("caption", author=["x", "y", "z"]).save_to_disk(folder),
    "parquet": parquet,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_pictures_with_captions(tmp_path: Path, way: str) -> None:
    WAYS[way](tmp_path / "set")
    found = read_captioned([tmp_path / "set"])
    assert [each.caption for each in found] == ["a red flag", None, "a blue flag"]
    assert [each.open().getpixel((3, 2)) for each in found] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    with pytest.raises(UsageError, match=r"\[1\] has no caption; fill in its text, or"):
        require_captions(found, ", or else")


def test_pictures_that_are_only_named(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "a.png")
    named = [{"path": name, "bytes": None} for name in ("../a.png", "gone.png")]
    kinds = datasets.Features({"image": datasets.Image(decode=False)})
    found = datasets.Dataset.from_dict({"image": [*named, None]}, features=kinds)
    (tmp_path / "set").mkdir()
    write_table(found.data.table.cast(kinds.arrow_schema), tmp_path / "set" / "train.parquet")
    there, gone, nothing = read_captioned([tmp_path / "set"])
    assert there.open().getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(UsageError, match=r"can't read .*gone\.png"):
        gone.open()
    with pytest.raises(UsageError, match="row 2 of train has no picture"):
        nothing.open()


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    kinds = datasets.Features({"image": datasets.Image(decode=False)})
    damaged = [{"path": None, "bytes": b"\x89PNG\r\n\x1a\n nothing"}]
    datasets.Dataset.from_dict({"image": damaged}, features=kinds).save_to_disk(tmp_path / "set")
    with pytest.raises(UsageError, match=r"rows\[0\]"):
        read_captioned([tmp_path / "set"])[0].open()


def test_what_is_no_training_set(tmp_path: Path) -> None:
    datasets.DatasetDict(one=rows(), two=rows()).save_to_disk(tmp_path / "splits")
    datasets.Dataset.from_dict({"text": ["x"], "n": [1]}).save_to_disk(tmp_path / "words")
    rows().save_to_disk(tmp_path / "cut")
    arrow = next((tmp_path / "cut").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "x.parquet").write_bytes(b"PAR1 nothing")
    for name, words in {
        "splits": "has the splits one, two and no train; give the folder of one",
        "words": "has no column of pictures, but text, n",
        "cut": "can't read the dataset",
        "parquet": "can't read the dataset",
    }.items():
        with pytest.raises(UsageError, match=words):
            read_captioned([tmp_path / name])
    assert len(read_captioned([tmp_path / "splits" / "two"])) == 3


def test_without_the_library_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows().save_to_disk(tmp_path / "set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'fromnoise\[datasets\]'"):
        read_captioned([tmp_path / "set"])
