import json

import numpy as np
import pytest

from fromnoise.data import build_dataset, load_dataset
from fromnoise.runtime.errors import FromnoiseError, UsageError


@pytest.fixture
def folder(tmp_path, cache, picture_sets):
    build_dataset(tmp_path / "data", cache=cache, picture_sets=picture_sets, workers=1)
    return tmp_path / "data"


def test_pixels_are_the_pictures_asked_for(folder):
    dataset = load_dataset(folder)
    pixels = dataset.pixels([3, 1])
    assert (pixels.shape, pixels.dtype) == ((2, 128, 128, 3), np.uint8)
    assert np.array_equal(pixels[1], dataset.all_pixels[1])
    assert dataset.pixels([]).shape == (0, 128, 128, 3)
    assert len(dataset.all_pixels) == len(dataset) == 15


def test_indices_ask_for_split_fold_and_style(folder):
    dataset = load_dataset(folder)
    found = dataset.indices(style="twemoji")
    assert [dataset.pictures[index].style for index in found] == ["twemoji"] * 3
    assert len(dataset.indices(split="train")) + len(dataset.indices(split="held_out")) == len(dataset)
    assert dataset.indices() == list(range(len(dataset)))


def test_words_hold_the_nouns(folder):
    assert ("bat", "chiropteran") in {word.lemmas for word in load_dataset(folder).words}


def test_the_cache_of_pixels_is_used_and_made_again_when_it_is_damaged(folder):
    good = np.array(load_dataset(folder).all_pixels)
    path = folder / "pixels.npy"
    stamp = path.stat().st_mtime_ns
    assert np.array_equal(load_dataset(folder).all_pixels, good)
    assert path.stat().st_mtime_ns == stamp
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert np.array_equal(load_dataset(folder).all_pixels, good)


def test_no_dataset_says_how_to_get_one(tmp_path):
    with pytest.raises(UsageError, match="fromnoise dataset"):
        load_dataset(tmp_path / "nowhere")


def test_a_missing_or_changed_picture_is_named(folder):
    dataset = load_dataset(folder)
    path = folder / dataset.pictures[2].file_name
    path.write_bytes(b"not the picture")
    with pytest.raises(FromnoiseError, match=path.name):
        dataset.pixels([2])
    path.unlink()
    with pytest.raises(FromnoiseError, match="lacks"):
        dataset.pixels([2])


def test_metadata_that_was_cut_short_is_refused(folder):
    path = folder / "metadata.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(FromnoiseError, match="cut short"):
        load_dataset(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}'])
def test_a_damaged_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FromnoiseError, match="build"):
        load_dataset(folder)


def test_a_record_without_a_field_is_refused(folder):
    path = folder / "metadata.jsonl"
    record = json.loads(path.read_text().splitlines()[0])
    del record["split"]
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(FromnoiseError, match="split"):
        load_dataset(folder)
