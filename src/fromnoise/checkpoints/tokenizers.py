"""A checkpoint's tokenizers: folders of small text files, which the single-file layout has no place for.

Published ones have `vocab.json` and `merges.txt`; transformers from release 5 writes both into one `tokenizer.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fromnoise.checkpoints.folder import read_json
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import atomic_write, cache_dir

VOCABULARY, MERGES, WHOLE = "vocab.json", "merges.txt", "tokenizer.json"
FILES = (VOCABULARY, MERGES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""What a tokenizer of CLIP's format consists of; the first two are never missing."""

Texts = Mapping[str, str]
"""A tokenizer's files: name to content."""


def own_texts(folder: Path) -> dict[str, str]:
    """A tokenizer's files without what ships with this package, CLIP's published vocabulary and its merges."""
    from fromnoise.text.tokenizer import clip_vocabulary

    texts = read_texts(folder)
    published = json.loads(texts[VOCABULARY]) == clip_vocabulary()[0]
    return {name: text for name, text in texts.items() if not published or name not in (VOCABULARY, MERGES)}


def read_texts(folder: Path) -> dict[str, str]:
    """A tokenizer's files, to keep elsewhere; FromnoiseError when they are damaged or no vocabulary is among them."""
    try:
        texts = {name: (folder / name).read_text(encoding="utf-8") for name in FILES if (folder / name).is_file()}
    except (OSError, ValueError) as error:
        raise FromnoiseError(f"{folder} can't be read: {error}") from error
    return {**_from_one(folder / WHOLE), **texts} if VOCABULARY not in texts else texts


def readable(folder: Path) -> Path:
    """A folder that has the vocabulary in a file of its own: this one, or one in the cache."""
    return folder if (folder / VOCABULARY).is_file() else unpacked(read_texts(folder))


def _from_one(path: Path) -> dict[str, str]:
    """Vocabulary and merges out of a `tokenizer.json`."""
    try:
        model = read_json(path)["model"]
        merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
        return {VOCABULARY: json.dumps(model["vocab"], ensure_ascii=False), MERGES: _lines(merges)}
    except (KeyError, TypeError) as error:
        raise FromnoiseError(f"{path} holds no vocabulary with merges ({error!r})") from error


def _lines(merges: Iterable[str]) -> str:
    return "\n".join(["#version: 0.2", *merges]) + "\n"


def write_texts(folder: Path, texts: Texts) -> None:
    """Write a tokenizer's files into a folder; FromnoiseError for names that are none of them."""
    for name, text in texts.items():
        if name not in FILES or not isinstance(text, str):
            raise FromnoiseError(f"{name!r} is no file of a tokenizer")
        with atomic_write(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def unpacked(texts: Texts) -> Path:
    """A folder in the cache with these files, and CLIP's vocabulary where they bring none; written once."""
    if VOCABULARY not in texts:
        texts = {**clip_texts({}), **texts}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir() / "tokenizers" / digest
    if not all((folder / name).is_file() for name in texts):
        write_texts(folder, texts)
    return folder


def clip_texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """The files of CLIP's published tokenizer, with `model_max_length` and `pad_token` from `fields`."""
    from fromnoise.text.tokenizer import END, START, clip_vocabulary

    vocabulary, merges = clip_vocabulary()
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": fields.get("pad_token", END)}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": fields.get("model_max_length", 77),
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    return {
        VOCABULARY: json.dumps(vocabulary, ensure_ascii=False),
        MERGES: _lines(map(" ".join, merges)),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2) + "\n",
    }
