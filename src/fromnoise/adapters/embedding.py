"""Textual inversion: words of one's own, as vectors that the text encoder reads (Gal et al. 2022).

All the layouts: AUTOMATIC1111's pickle and `emb_params`, diffusers' `learned_embeds` with the token for a key, and
SDXL's `clip_l` and `clip_g`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.checkpoints.pickles import read_pickle
from fromnoise.checkpoints.stored import Stored
from fromnoise.checkpoints.tensor_file import write_stored
from fromnoise.checkpoints.weights import PICKLES, open_weights
from fromnoise.models.clip_text import ClipText
from fromnoise.runtime.errors import FromnoiseError, UsageError

WHOLE, NESTED, TOKENS, STAR = "emb_params", "string_to_param", "string_to_token", "*"
"""AUTOMATIC1111's keys: of safetensors, and of pickles, where vectors stand under the placeholder."""

PARTS: Mapping[str, str] = MappingProxyType({"clip_l": "text_encoder", "clip_g": "text_encoder_2"})
"""SDXL's keys and the encoders that they are for."""

WIDTHS: Mapping[int, str] = MappingProxyType(
    {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 1280: "the second encoder of Stable Diffusion XL"}
)
"""Whose vectors are so wide."""


@dataclass(frozen=True)
class Embedding:
    """A token and its vectors (N, C): by text encoder where the file tells, else under "" for the only one."""

    token: str
    vectors: Mapping[str, Tensor]
    source: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many vectors stand for the token, and so how many positions it takes in a prompt."""
        return max(len(each) for each in self.vectors.values())

    def for_encoders(self, encoders: Mapping[str, ClipText]) -> dict[str, Tensor]:
        """The vectors for each of a model's text encoders.

        Raises FromnoiseError when an encoder gets none or some of another width: they belong to another family.
        """
        vectors = {next(iter(encoders)): self.vectors[""]} if "" in self.vectors else dict(self.vectors)
        widths = {name: encoder.config.hidden_size for name, encoder in encoders.items()}
        if {name: each.shape[1] for name, each in vectors.items()} == widths:
            return vectors
        wanted = ", ".join(f"{width} wide for its {name}" for name, width in widths.items())
        raise FromnoiseError(
            f"{self.source or self.token} belongs to another model: its vectors are {self._described()}, and this "
            f"model needs some {wanted}"
        )

    def _described(self) -> str:
        said = (f"{each.shape[1]} wide" + (f" ({WIDTHS[each.shape[1]]})" if each.shape[1] in WIDTHS else "")
                for each in self.vectors.values())  # fmt: skip
        return " and ".join(said)


def read_embedding(path: str | Path, token: str | None = None) -> Embedding:
    """The textual inversion in a file of any layout; a pickle is read by a weights-only reader and runs nothing.

    The token is the one given, else the key of diffusers' layout, else the file's name without its ending, as in the
    AUTOMATIC1111 web UI. Raises UsageError when there is no file, FromnoiseError for what is no textual inversion.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no embedding at {path}")
    content, metadata = _content(path)
    named, vectors = _found(path, content)
    chosen = token or named or path.stem
    if not chosen.strip():
        raise UsageError(f"{path} needs a token that can stand in a prompt")
    return Embedding(chosen.strip(), {part: _matrix(path, each) for part, each in vectors.items()}, path, metadata)


class _Parameters(dict[Any, Any]):
    """Stands for torch's ParameterDict, which old pickles keep their vectors in; only the vectors are looked at."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.update(state.get("_parameters", {}))


STAND_INS = {"torch.nn.modules.container.ParameterDict": _Parameters}


def _content(path: Path) -> tuple[Mapping[Any, Any], Mapping[str, str]]:
    """What the file holds, tensors in memory, and its metadata."""
    with path.open("rb") as file:
        pickled = file.read(4).startswith(PICKLES)
    if pickled:
        return read_pickle(path, STAND_INS), {}
    weights = open_weights(path)
    return {key: each.read() for key, each in weights.tensors.items()}, weights.metadata


def _found(path: Path, content: Mapping[Any, Any]) -> tuple[str | None, dict[str, Tensor]]:
    """The token when it is a key, and the vectors by text encoder."""
    nested = content.get(NESTED)
    if isinstance(nested, Mapping):
        tensors = [each for each in nested.values() if isinstance(each, Tensor)]
        return None, {"": _only(path, tensors)}
    tensors = {str(key): each for key, each in content.items() if isinstance(each, Tensor)}
    if WHOLE in tensors:
        return None, {"": tensors[WHOLE]}
    if tensors and tensors.keys() <= PARTS.keys():
        return None, {PARTS[key]: each for key, each in tensors.items()}
    vector = _only(path, list(tensors.values()))
    key = next(iter(tensors))
    return (None if key == STAR else key), {"": vector}


def _only(path: Path, tensors: list[Tensor]) -> Tensor:
    if len(tensors) != 1:
        raise FromnoiseError(f"{path} is no textual inversion: {len(tensors)} tensors where one token's were expected")
    return tensors[0]


def _matrix(path: Path, vectors: Tensor) -> Tensor:
    """Vectors (N, C), also of a single (C,)."""
    matrix = vectors.detach()[None] if vectors.ndim == 1 else vectors.detach()
    if matrix.ndim != 2 or not matrix.is_floating_point() or not matrix.numel():
        raise FromnoiseError(f"{path} is no textual inversion: {list(vectors.shape)} {vectors.dtype} are no vectors")
    return matrix


def write_embedding(path: str | Path, embedding: Embedding, metadata: Mapping[str, str] | None = None) -> None:
    """Write a textual inversion that diffusers, AUTOMATIC1111 and ComfyUI load, replacing what is there.

    One encoder's vectors get the token for a key, SDXL's get `clip_l` and `clip_g` (the token is then the file's name).
    """
    names = {part: key for key, part in PARTS.items()}
    alone = len(embedding.vectors) == 1
    tensors = {embedding.token if alone else names[part]: each for part, each in embedding.vectors.items()}
    stored = {key: Stored.of(each.detach().cpu().contiguous()) for key, each in tensors.items()}
    write_stored(Path(path).expanduser(), stored, {"format": "pt", **(metadata or {})})


def text_encoders(modules: Mapping[str, nn.Module]) -> dict[str, ClipText]:
    """The text encoders among a model's parts."""
    return {name: each for name, each in modules.items() if isinstance(each, ClipText)}


def rows_of(embeddings: tuple[Embedding, ...], modules: Mapping[str, nn.Module]) -> dict[str, list[Tensor]]:
    """Each text encoder's added vectors, embedding after embedding."""
    encoders = text_encoders(modules)
    found = [each.for_encoders(encoders) for each in embeddings]
    return {name: [each[name] for each in found] for name in encoders}


def joined_rows(rows: list[Tensor], like: Tensor) -> Tensor:
    """All vectors (N, C) as the encoder's table has its own."""
    return torch.cat([each.to(like) for each in rows])
