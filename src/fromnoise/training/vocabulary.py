"""Learn a byte-pair vocabulary in CLIP's format: bytes, bytes that end a word, merges, start, end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import pre_tokenizers, trainers

from fromnoise.runtime.paths import atomic_write
from fromnoise.text.tokenizer import END, END_OF_WORD, START, Tokenizer, engine

SPECIAL = 2
"""Start and end; they are the last two ids."""


def learn_vocabulary(texts: Iterable[str], size: int, max_length: int) -> Tokenizer:
    """A tokenizer of `size` tokens (fewer when the texts hold too little) learnt on `texts` (Sennrich et al. 2016)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet += [f"{each}{END_OF_WORD}" for each in alphabet]
    merges = _merges(texts, size, alphabet)[: size - SPECIAL - len(alphabet)]
    pieces = [*alphabet, *("".join(pair) for pair in merges), START, END]
    return Tokenizer({piece: id for id, piece in enumerate(pieces)}, merges, max_length=max_length)


def _merges(texts: Iterable[str], size: int, alphabet: list[str]) -> list[tuple[str, str]]:
    """The alphabet goes in as special tokens: ids given in the order of a hash table would break ties by chance."""
    made = engine({}, [], None)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return [(one, other) for one, other in json.loads(made.to_str())["model"]["merges"]]


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the folder that transformers' `CLIPTokenizer` and our `Tokenizer.read` read."""
    special = {f"{name}_token": END for name in ("eos", "pad", "unk")} | {"bos_token": START}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokenizer.max_length,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    lines = ["#version: 0.2", *(f"{one} {other}" for one, other in tokenizer.merges)]
    _write(folder / "merges.txt", "\n".join(lines) + "\n")
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2))
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    _write(folder / "vocab.json", json.dumps(tokenizer.vocabulary, ensure_ascii=False))  # where it is, all of them are


def _write(path: Path, text: str) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
