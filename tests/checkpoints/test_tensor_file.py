"""Safetensors files: what is written is read, by other readers too, and damage has a name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from fromnoise.checkpoints.stored import Stored
from fromnoise.checkpoints.tensor_file import DTYPES, open_tensors, read_header, write_stored
from fromnoise.checkpoints.weights import open_weights
from fromnoise.runtime.errors import FromnoiseError, UsageError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "none": torch.empty(0)}


def file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DAMAGED = {
    "one byte": (b"\0", "1 bytes are too few"),
    "truncated data": (save(TENSORS)[:-5], "cut off: 5 of"),
    "truncated header": (save(TENSORS)[:60], "is cut off after 52"),
    "bytes too many": (save(TENSORS) + b"abc", "3 bytes at its end"),
    "huge header": (file({}, length=2**63), "claims a header of 9223372036854775808 bytes"),
    "no JSON": (file(b"{nothing"), "can't be read as JSON"),
    "no text": (file(b"\xff\xfe{}"), "can't be read as JSON"),
    "deep JSON": (file(b"[" * 200_000), "can't be read as JSON"),
    "a list": (file([1]), "no JSON object"),
    "a key twice": (file(b'{"a":1,"a":2}'), "twice"),
    "metadata": (file({"__metadata__": {"a": 1}}), "metadata is not text"),
    "unknown dtype": (file({"a": entry("F31")}, bytes(8)), "a has the dtype F31"),
    "wrong dtype": (file({"a": entry("F64")}, bytes(8)), "takes 16 bytes, but has 8"),
    "wrong shape": (file({"a": entry(shape=[3])}, bytes(8)), "takes 12 bytes, but has 8"),
    "a shape beyond all": (file({"a": entry(shape=[0, 10**30], offsets=[0, 0])}), "a claims the shape [0, 1000"),
    "numbers beyond all": (file({"a": entry(shape=[2**59, 0, 2**59], offsets=[0, 0])}), "a claims the shape"),
    "half a character in a name": (file({"a\ud800": entry()}, bytes(8)), "no proper Unicode"),
    "half a character in metadata": (
        file({"__metadata__": {"a": "\ud800"}, "a": entry()}, bytes(8)),
        "no proper Unicode",
    ),
    "too many dimensions": (file({"a": entry(shape=[1] * 99 + [2])}, bytes(8)), "a claims the shape"),
    "negative shape": (file({"a": entry(shape=[-2])}, bytes(8)), "a has no proper dtype"),
    "no shape": (file({"a": entry(shape="2")}, bytes(8)), "a has no proper dtype"),
    "a truth for a number": (file({"a": entry(shape=[True, 2])}, bytes(8)), "a has no proper dtype"),
    "no entry": (file({"a": 3}), "a has no proper dtype"),
    "backwards": (file({"a": entry(offsets=[8, 0])}, bytes(8)), "takes 8 bytes, but has -8"),
    "overlap": (file({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "b starts at 4, where 8"),
    "gap": (file({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)), "b starts at 12, where 8"),
    "beyond the end": (file({"a": entry(offsets=[2**40, 2**40 + 8])}, bytes(8)), "a starts at"),
}


def assert_refused(read: Callable[[Path], Any], path: Path, content: bytes, *words: str):
    """A file of these bytes is an error that names it and says each of the words."""
    path.write_bytes(content)
    with pytest.raises(FromnoiseError) as caught:
        read(path)
    assert all(each in str(caught.value) for each in (path.name, *words))


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(tmp_path: Path, name: str):
    content, words = DAMAGED[name]
    assert_refused(open_tensors, tmp_path / "x.safetensors", content, "is damaged or no safetensors file", words)


STRANGE = {
    "nothing": (b"", "is empty"),
    "a git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265146304\n",
        "git-lfs pointer",
    ),
    "a web page": (b"\n<!DOCTYPE html><html>", "a web page"),
    "another web page": (b"<html lang=en>", "a web page"),
    "GGUF": (b"GGUF\x03\0\0\0", "a GGUF file"),
    "gzip": (b"\x1f\x8b\x08\0", "compressed with gzip"),
    "words": (b"Entry not found", "damaged or no safetensors file"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_downloads_bring_instead(tmp_path: Path, name: str):
    content, words = STRANGE[name]
    assert_refused(open_weights, tmp_path / "x.safetensors", content, words)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_damage_is_an_error_or_changes_no_number(tmp_path: Path, data: st.DataObject):
    """Bytes flipped, cut out or put in: either our own error, or every tensor still has its key, dtype and size."""
    whole = save(TENSORS, {"format": "pt"})
    header = 8 + int.from_bytes(whole[:8], "little")
    at = data.draw(st.integers(0, header - 1))
    cut = data.draw(st.integers(0, 4))
    new = data.draw(st.binary(max_size=4))
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole[:at] + new + whole[at + cut :])
    try:
        tensors, _ = open_tensors(path)
        read = {key: each.read() for key, each in tensors.items()}
    except FromnoiseError:
        return
    for key, value in read.items():
        assert (tuple(value.shape), value.dtype) == (tensors[key].shape, tensors[key].dtype)
    if {key: (each.shape, each.dtype) for key, each in TENSORS.items()} == {
        key: (value.shape, value.dtype) for key, value in read.items()
    }:
        assert all(torch.equal(read[key], TENSORS[key]) for key in TENSORS)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_an_error(tmp_path: Path, content: bytes):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(FromnoiseError):
        open_weights(path)


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 1, 1)])
def test_what_is_written_is_read_by_the_library(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]):
    tensor = (torch.rand(shape) * 100).to(dtype)
    path = tmp_path / "x.safetensors"
    write_stored(path, {"odd": Stored.of(torch.ones(3, dtype=torch.uint8)), "a": Stored.of(tensor)}, {"say": "ä"})
    loaded, header = load_file(path)["a"], read_header(path)
    assert (loaded.dtype, loaded.shape) == (dtype, tensor.shape)
    assert torch.equal(loaded.view(torch.uint8) if shape else loaded, tensor.view(torch.uint8) if shape else tensor)
    assert header.metadata == {"say": "ä"}


def test_writing_tells_its_progress_and_replaces_nothing_unasked(tmp_path: Path):
    path, told = tmp_path / "x.safetensors", []
    stored = {key: Stored.of(each) for key, each in TENSORS.items()}
    write_stored(path, stored, {}, overwrite=False, told=told.append)
    assert sum(told) == sum(each.bytes for each in stored.values())
    with pytest.raises(UsageError, match="exists"):
        write_stored(path, stored, {}, overwrite=False)


def test_a_tensor_that_is_not_what_was_promised_leaves_no_file(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FromnoiseError, match="a read as"):
        write_stored(path, {"a": Stored((3,), torch.float32, lambda: torch.zeros(4))}, {})
    assert list(tmp_path.iterdir()) == []


def test_headers_of_any_length_are_read(tmp_path: Path):
    """The format asks for no alignment, and some writers give none."""
    path = tmp_path / "x.safetensors"
    for pad in range(8):
        path.write_bytes(
            file(json.dumps({"a": entry()}).encode() + b" " * pad, torch.tensor([1.0, 2.0]).numpy().tobytes())
        )
        assert open_tensors(path)[0]["a"].read().tolist() == [1.0, 2.0]


def test_metadata_that_is_null_is_none(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(file({"__metadata__": None, "a": entry()}, bytes(8)))
    tensors, metadata = open_tensors(tmp_path / "x.safetensors")
    assert (list(tensors), dict(metadata)) == (["a"], {})


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(FromnoiseError, match=r"x.safetensors is missing"):
        open_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [0x280, 0x380, 0x8B1F, 0x480])
def test_a_headers_length_may_look_like_another_format(tmp_path: Path, length: int):
    path = tmp_path / "x.safetensors"
    text = json.dumps({"a": entry()}).encode()
    path.write_bytes(file(text + b" " * (length - len(text)), bytes(8)))
    assert list(open_weights(path).tensors) == ["a"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list mappings")
def test_pages_of_tensors_that_were_dropped_do_not_stay_mapped(tmp_path: Path):
    path = tmp_path / "many.safetensors"
    values = {f"{number:02}": torch.full((100,), float(number)) for number in range(20)}
    path.write_bytes(save(values))
    stored, _ = open_tensors(path)
    kept = stored["00"].read()
    cast = {key: each.read().double() for key, each in stored.items()}
    assert all(torch.equal(cast[key], values[key].double()) for key in values)
    assert torch.equal(kept, values["00"])
    assert Path("/proc/self/maps").read_text().count(str(path)) == 1
    del kept
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_file_that_takes_the_place_of_an_open_one_is_not_read(tmp_path: Path):
    path, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    path.write_bytes(save({"a": torch.ones(3)}))
    stored, _ = open_tensors(path)
    other.write_bytes(save({"b": torch.zeros(500), "a": torch.zeros(3)}))
    other.replace(path)
    assert stored["a"].read().tolist() == [1, 1, 1]


def test_changing_a_tensor_leaves_its_file_alone(tmp_path: Path):
    path = tmp_path / "one.safetensors"
    path.write_bytes(save({"a": torch.ones(3), "none": torch.ones(0, 2)}))
    stored, _ = open_tensors(path)
    stored["a"].read().zero_()
    assert stored["a"].read().tolist() == [1, 1, 1]
    assert stored["none"].read().shape == (0, 2)
