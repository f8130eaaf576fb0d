"""Textual inversion: a new word for what a handful of pictures show (Gal et al. 2022). Nothing else learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor, nn

from fromnoise.adapters import Adapted, Embedding, write_embedding
from fromnoise.pipeline import Pipeline
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.seeds import generator
from fromnoise.text import TextEncoder
from fromnoise.training.tuning.pictures import read_captioned
from fromnoise.training.tuning.running import How, Outcome, Result, begin, opened, tune
from fromnoise.training.tuning.samples import Pool, parted, quiet
from fromnoise.training.tuning.task import Learns, Tuning
from fromnoise.training.tuning.words import require_new_word, worded

SPREAD = 0.1
"""How far the second and later vectors of a one-piece word start from it, in units of the table's own deviation."""


@dataclass(frozen=True)
class InversionRecipe(Tuning):
    """Settings of a run. `rate` is in units of the embedding table's deviation, so it fits tables of any scale.

    All noise levels count alike, as in Gal et al. 2022: what a few words can say, grounds and colours above all, is
    decided at the noisiest, where Min-SNR leaves next to nothing.
    """

    token: str = ""
    init: str = ""
    vectors: int = 2
    style: bool = False
    steps: int = 300
    rate: float = 0.2
    gamma: float = 0.0


class Vectors(nn.Module):
    """The rows that learn, (N, C) for each text encoder, and nothing else."""

    def __init__(self, rows: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.rows = nn.ParameterDict({name: nn.Parameter(each.clone()) for name, each in rows.items()})

    def embedding(self, token: str) -> Embedding:
        """The rows as a textual inversion that shares their tensors."""
        return Embedding(token, dict(self.rows.items()))


def train(
    pictures: Sequence[Path],
    run: Path,
    recipe: InversionRecipe,
    output: Path,
    **how: Unpack[How],
) -> Result:
    """Learn `recipe.token` from pictures, in the folder `run`; `output` is the file that other tools load.

    Raises UsageError for pictures that can't be read, and for a token that is a word already.
    """
    found = read_captioned(pictures)
    pipeline = opened(recipe)
    require_new_word(pipeline, recipe.token)
    vectors = Vectors(first_rows(pipeline, recipe))
    begin(run, recipe, pictures, len(found), resume=how.get("resume", False))
    texts = [worded(each.caption, recipe.token, style=recipe.style) for each in found]
    learnt, held = parted(pipeline, found, texts, flip=recipe.flip, told=how.get("told", quiet))
    return tune(
        run,
        pipeline,
        _learns(pipeline, vectors, recipe.token),
        Outcome(
            write=lambda path: write_embedding(path, vectors.embedding(recipe.token)),
            fields=lambda path: {"embeddings": (str(path),)},
        ),
        [Pool(learnt)],
        held,
        prompts_for(recipe),
        _scaled(recipe, pipeline),
        output,
        decay=0.0,
        **how,
    )


def first_rows(pipeline: Pipeline, recipe: InversionRecipe) -> dict[str, Tensor]:
    """Where the vectors start: at the pieces of the word `init`, in turn; their mean when there is one vector.

    UsageError when `init` says nothing.
    """
    rows = {}
    for part, encoder in _encoders(pipeline).items():
        ids = encoder.tokenizer.ids(recipe.init)
        if not ids:
            raise UsageError("give a word to start from: --init cat, say")
        rows[part] = _rows(_table(encoder).weight.detach(), ids, recipe)
    return rows


def prompts_for(recipe: InversionRecipe) -> tuple[str, ...]:
    """What is drawn on the way: three with the word, one without, which should stay as it is."""
    if recipe.style:
        return (*(f"{each}, {recipe.token} style" for each in ("a cat", "a house", "a red apple")), "a cat")
    token = recipe.token
    return f"a picture of {token}", f"{token} on a blue background", token, f"a picture of a {recipe.init}"


def _rows(table: Tensor, ids: Sequence[int], recipe: InversionRecipe) -> Tensor:
    pieces = table[list(ids)]
    if recipe.vectors == 1:
        return pieces.mean(0, keepdim=True)
    turns = torch.arange(recipe.vectors)
    start = pieces[turns % len(ids)]
    shift = torch.randn(start.shape, generator=generator("vectors", recipe.seed)).to(table) * SPREAD * table.std()
    return start + shift * (turns >= len(ids)).to(table)[:, None]


def _learns(pipeline: Pipeline, vectors: Vectors, token: str) -> Learns:
    modules = {part: encoder.clip_text for part, encoder in _encoders(pipeline).items()}
    adapted = Adapted(modules, embeddings=[vectors.embedding(token)], learning=True)
    return Learns(vectors, adapted.prompts(pipeline.prompts), adapted, text=True)


def _scaled(recipe: InversionRecipe, pipeline: Pipeline) -> Tuning:
    """The recipe with its rate in the table's own units."""
    fields = {name: getattr(recipe, name) for name in Tuning.__dataclass_fields__}
    return Tuning(**{**fields, "rate": recipe.rate * float(_table(pipeline.text).weight.std())})


def _encoders(pipeline: Pipeline) -> dict[str, TextEncoder]:
    """The text encoders by diffusers' names."""
    return dict(zip(("text_encoder", "text_encoder_2"), pipeline.prompts.encoders, strict=False))


def _table(encoder: TextEncoder) -> nn.Embedding:
    return encoder.clip_text.text_model.embeddings.token_embedding
