from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.text import Tokenizer
from fromnoise.training.vocabulary import learn_vocabulary, save_tokenizer
from tests.text.examples import TEXTS


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learn_vocabulary(TEXTS, 560, 12)


def test_start_pieces_end_padding(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["a red apple", ""])
    assert ids.shape == (2, 12)
    assert ids.dtype == torch.int64
    said = tokenizer.ids("a red apple")
    assert ids[0].tolist() == [tokenizer.start, *said, *[tokenizer.end] * (11 - len(said))]
    assert ids[1].tolist() == [tokenizer.start, *[tokenizer.end] * 11]
    assert tokenizer.encode([]).shape == (0, 12)


def test_start_and_end_are_the_two_last_ids(tokenizer: Tokenizer) -> None:
    count = len(tokenizer.vocabulary)
    assert (tokenizer.start, tokenizer.end, tokenizer.pad) == (count - 2, count - 1, count - 1)
    assert sorted(tokenizer.vocabulary.values()) == list(range(count))


def test_words_are_lower_cased_and_spaces_cleaned(tokenizer: Tokenizer) -> None:
    assert tokenizer.ids("  A  Red\n\tAPPLE ") == tokenizer.ids("a red apple")
    assert tokenizer.tokens("apple, 42")[-3:] == [",</w>", "4</w>", "2</w>"]
    assert tokenizer.tokens("don't")[-1] == "'t</w>"


def test_bytes_never_seen_are_kept(tokenizer: Tokenizer) -> None:
    assert tokenizer.text(tokenizer.ids("émigré 🐶 日本")) == "émigré 🐶 日本"


def test_what_does_not_fit_is_said(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fromnoise"):
        ids = tokenizer.encode(["1 2 3 4 5 6 7 8 9 0 1 2"])
    assert ids.shape == (1, 12)
    assert ids[0, -1] == tokenizer.end
    assert "12 tokens long and 10 fit" in caplog.text
    assert "'1 2'" in caplog.text


def test_a_folder_reads_as_it_was_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tmp_path, tokenizer)
    read = Tokenizer.read(tmp_path)
    assert (read.vocabulary, read.merges, read.max_length) == (tokenizer.vocabulary, tokenizer.merges, 12)


def test_padding_with_another_token(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Stable Diffusion 2 pads with "!", and writes its tokens as objects."""
    save_tokenizer(tmp_path, tokenizer)
    (tmp_path / "tokenizer_config.json").unlink()
    tokens = {"pad_token": "!", "eos_token": {"content": "<|endoftext|>", "lstrip": False}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(tokens))
    read = Tokenizer.read(tmp_path)
    ids = read.encode(["apple"])[0]
    assert read.max_length == 77
    assert ids[-1] == tokenizer.vocabulary["!"]
    assert read.end in ids


def test_a_special_token_that_is_null_is_the_usual_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tmp_path, tokenizer)
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": null}')
    assert Tokenizer.read(tmp_path).pad == tokenizer.end


def test_bad_folders_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(FromnoiseError, match=r"vocab\.json is missing"):
        Tokenizer.read(tmp_path)
    save_tokenizer(tmp_path, tokenizer)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(FromnoiseError, match=r"merges\.txt"):
        Tokenizer.read(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(FromnoiseError, match=r"vocab\.json can't be read"):
        Tokenizer.read(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", "null"),
        ("tokenizer_config.json", "[" * 100_000),
        ("tokenizer_config.json", '{"model_max_length": 1e30}'),
        ("tokenizer_config.json", '{"model_max_length": "many"}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"cat": {"content": "<cat>"}}}'),
        ("added_tokens.json", '{"<cat>": "many"}'),
        ("added_tokens.json", "[]"),
        ("tokenizer.json", '{"added_tokens": [{"content": "<cat>"}]}'),
        ("special_tokens_map.json", '{"pad_token": {}}'),
        ("tokenizer_config.json", '{"model_max_length": 2}'),
        ("vocab.json", '{"a": "b", "<|startoftext|>": 1, "<|endoftext|>": 2}'),
        ("vocab.json", '{"<|startoftext|>": 1, "<|endoftext|>": 2}'),
    ],
)
def test_damaged_files_are_named(tokenizer: Tokenizer, tmp_path: Path, file: str, content: str) -> None:
    save_tokenizer(tmp_path, tokenizer)
    (tmp_path / file).write_text(content)
    with pytest.raises(FromnoiseError, match=tmp_path.name):
        Tokenizer.read(tmp_path)


def test_a_vocabulary_without_special_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match="startoftext"):
        Tokenizer({"a": 0}, [])


def test_a_lone_tokenizer_json_does(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """transformers from release 5 writes vocabulary and merges into it alone."""
    model = {"vocab": tokenizer.vocabulary, "merges": tokenizer.merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 12}))
    read = Tokenizer.read(tmp_path)
    assert torch.equal(read.encode(["a red apple"]), tokenizer.encode(["a red apple"]))
    joined = {"model": {**model, "merges": list(map(" ".join, tokenizer.merges))}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(joined))
    assert Tokenizer.read(tmp_path).merges == tokenizer.merges
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FromnoiseError, match=r"tokenizer.json holds no vocabulary"):
        Tokenizer.read(tmp_path)
