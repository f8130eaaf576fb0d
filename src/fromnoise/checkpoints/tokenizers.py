"""A checkpoint's tokenizers: folders of small text files, which the single-file layout has no place for.

Published ones have `vocab.json` and `merges.txt`; transformers from release 5 writes both into one `tokenizer.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.models.published import FAMILIES
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import atomic_write, cache_dir

if TYPE_CHECKING:
    from fromnoise.checkpoints.checkpoint import Checkpoint
    from fromnoise.text.tokenizer import Tokenizer

VOCABULARY, MERGES, ADDED = "vocab.json", "merges.txt", "added_tokens.json"
FILES = (VOCABULARY, MERGES, "tokenizer_config.json", "special_tokens_map.json", ADDED)
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
    from fromnoise.text.tokenizer import added_in_whole, read_vocabulary

    added = added_in_whole(folder)
    if added and ADDED not in texts:
        texts[ADDED] = json.dumps(added, ensure_ascii=False)
    return texts if VOCABULARY in texts else {**_written(*read_vocabulary(folder)), **texts}


def tokenizer_of(checkpoint: Checkpoint, name: str) -> Tokenizer:
    """A checkpoint's tokenizer by its folder's name; CLIP's as the family uses it where the checkpoint has no own."""
    from fromnoise.text.tokenizer import END, Tokenizer

    folder = checkpoint.tokenizers.get(name)
    if folder is not None:
        return Tokenizer.read(folder)
    fields = published_fields(checkpoint.family, name)
    return Tokenizer.clip(fields.get("model_max_length", 77), fields.get("pad_token", END))


def published_fields(family: str, name: str) -> Mapping[str, Any]:
    """What sets a family's published tokenizer apart; nothing for a family that is none."""
    return FAMILIES[family].tokenizers.get(name, {}) if family in FAMILIES else {}


def _written(vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A vocabulary and its merges as files."""
    lines = ["#version: 0.2", *map(" ".join, merges)]
    return {VOCABULARY: json.dumps(vocabulary, ensure_ascii=False), MERGES: "\n".join(lines) + "\n"}


def checked_texts(value: Any) -> dict[str, str]:
    """A tokenizer's files as JSON states them; ValueError, TypeError or AttributeError for anything else."""
    texts = dict(value)
    for name, text in texts.items():
        if name not in FILES:
            raise ValueError(f"{name!r} is no file of a tokenizer")
        text.encode()
    return texts


def write_texts(folder: Path, texts: Texts) -> None:
    """Write a tokenizer's files into a folder; FromnoiseError for names that are none of them."""
    for name, text in texts.items():
        if name not in FILES or not isinstance(text, str):
            raise FromnoiseError(f"{name!r} is no file of a tokenizer")
        with atomic_write(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")


def unpacked(texts: Texts) -> Path:
    """A folder in the cache with these files, and CLIP's vocabulary where they bring none; what differs is written."""
    if VOCABULARY not in texts:
        texts = {**clip_texts({}), **texts}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir() / "tokenizers" / digest
    if not all(_holds(folder / name, text) for name, text in texts.items()):
        write_texts(folder, texts)
    return folder


def _holds(path: Path, text: str) -> bool:
    """True when a file is there and as it was written; a damaged one is written anew."""
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


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
        **_written(vocabulary, merges),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2) + "\n",
    }
