"""What the text encoder learns from: chosen texts with their teacher's vectors, captions by picture, small pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.data import Dataset, Picture
from fromnoise.data.captions import clean
from fromnoise.runtime.paths import PACKAGE
from fromnoise.runtime.seeds import generator
from fromnoise.text.tokenizer import Tokenizer
from fromnoise.training.phrases import STYLES, compounds, explanations, in_wider_company, more_phrases, phrases
from fromnoise.training.teacher import Teacher

_HELD_OUT = PACKAGE / "evaluation" / "reworded.jsonl"

SIDE = 32
"""Pictures are this small for the contrastive loss."""

AROUND, LEAST, COMPOUNDS = 64, 0.25, 60
"""So many words nearest to each concept, of at least that cosine, are put into so many texts of two to four."""

FURTHER, AMONG = 1500, 140
"""The rest of so many words nearest to each concept are put around one or two of those nearest, in so many texts."""

_STYLED = re.compile(rf"\b(style|{'|'.join(map(re.escape, STYLES))})\b")


@dataclass(frozen=True)
class Texts:
    """Captions first, then other texts; the teacher's vectors of texts (N, 384) and of concepts (K, 384)."""

    texts: tuple[str, ...]
    captions: int
    vectors: Tensor
    concepts: Tensor


@dataclass(frozen=True)
class Lessons:
    """Texts as token ids (N, M) and vectors (N, 384); by training picture its captions' rows; the other rows.

    `pictures` is (P, 3, 32, 32) uint8, `concepts` (K, 384), `plain` (N,) whether a text names no style.
    """

    tokens: Tensor
    vectors: Tensor
    captions: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    pictures: Tensor
    concepts: Tensor
    plain: Tensor


def choose_texts(
    dataset: Dataset,
    teacher: Teacher,
    keep_out: Collection[str],
    *,
    near: float,
    far: float,
    stride: int,
    seed: int,
) -> Texts:
    """Every `stride`-th caption, the phrases at least `near` (cosine) some concept, and a share `far` of the others.

    Words that are near get further phrases, and the words nearest to a concept are put together and among words that
    are further from it. Every single word is kept: it may turn up in any company. No text of `keep_out` is among them,
    unless a caption says it.
    """
    said = _captions(dataset, stride)
    texts = _joined(said, phrases(dataset, teacher.words()))
    vectors = teacher(texts)
    concepts = concept_vectors(training_pictures(dataset), dict(zip(said, vectors.float(), strict=False)))
    close = closeness(vectors, concepts) >= near
    known = {text for text, is_close in zip(texts, close.tolist(), strict=True) if is_close}
    around = words_around(texts, vectors, concepts)
    together = compounds((near for near, _ in around), COMPOUNDS)
    among = in_wider_company(around, AMONG)
    texts = _joined(texts, more_phrases(dataset, known, teacher.words()), together, among, explanations(dataset))
    vectors = teacher(texts)
    kept = closeness(vectors, concepts) >= near
    kept |= torch.rand(len(texts), generator=generator("far", seed)) < far
    kept |= torch.tensor([" " not in text for text in texts])
    banned = {clean(each) for each in keep_out}
    chosen = [row for row, text in enumerate(texts) if row < len(said) or (kept[row] and text not in banned)]
    return Texts(tuple(texts[row] for row in chosen), len(said), vectors[chosen], concepts)


def prepare(dataset: Dataset, texts: Texts, tokenizer: Tokenizer, stride: int) -> Lessons:
    """What a task draws its batches from."""
    rows = {text: row for row, text in enumerate(texts.texts)}
    return Lessons(
        tokens=torch.cat([tokenizer.encode(part).short() for part in _batched(texts.texts, 4096)]),
        vectors=texts.vectors,
        captions=tuple(tuple(rows[text] for text in each.captions[::stride]) for each in training_pictures(dataset)),
        others=tuple(range(texts.captions, len(texts.texts))),
        pictures=small_pictures(dataset),
        concepts=texts.concepts,
        plain=torch.tensor([is_plain(text) for text in texts.texts]),
    )


def reworded_prompts() -> dict[str, str]:
    """The held-out prompts, which nothing is trained on, and the code points of the concept that each means."""
    rows = (json.loads(line) for line in _HELD_OUT.read_text(encoding="utf-8").splitlines())
    return {row["prompt"]: row["concept"] for row in rows}


def training_pictures(dataset: Dataset) -> list[Picture]:
    """The records of the training split, in order."""
    return [dataset.pictures[index] for index in dataset.indices(split="train")]


def plain_captions(pictures: Iterable[Picture]) -> dict[str, tuple[str, ...]]:
    """By code points of a concept, in order, the distinct captions that name no style."""
    said: dict[str, dict[str, None]] = {}
    for picture in pictures:
        said.setdefault(picture.concept, {}).update(dict.fromkeys(filter(is_plain, picture.captions)))
    return {concept: tuple(sorted(texts)) for concept, texts in sorted(said.items())}


def is_plain(caption: str) -> bool:
    """True where a caption neither names nor describes a style."""
    return _STYLED.search(caption) is None


def concept_vectors(pictures: Iterable[Picture], vectors: Mapping[str, Tensor]) -> Tensor:
    """The normalised mean vector (K, C) of each concept's plain captions that have one; in order of code points."""
    known = ([vectors[text] for text in texts if text in vectors] for texts in plain_captions(pictures).values())
    return F.normalize(torch.stack([torch.stack(some).mean(0) for some in known]), dim=-1)


def closeness(vectors: Tensor, concepts: Tensor) -> Tensor:
    """The cosine of each unit vector (N, C) with its nearest concept (K, C), (N,)."""
    return torch.cat([(part.float() @ concepts.T).amax(1) for part in vectors.split(8192)])


def words_around(texts: Sequence[str], vectors: Tensor, concepts: Tensor) -> list[tuple[list[str], list[str]]]:
    """By concept (K, C), the single words of the texts (N, C) that are nearest to it: at most `AROUND` of at least
    `LEAST`, and the others of the first `FURTHER`; the nearest first.
    """
    rows = [row for row, text in enumerate(texts) if " " not in text]
    near = (concepts @ vectors[rows].float().T).topk(min(FURTHER, len(rows)), 1)
    enough = (near.values >= LEAST).sum(1).clamp(max=AROUND).tolist()
    words = ([texts[rows[int(at)]] for at in some] for some in near.indices.tolist())
    return [(some[:count], some[count:]) for some, count in zip(words, enough, strict=True)]


def small_pictures(dataset: Dataset) -> Tensor:
    """The training pictures as bytes (N, 3, 32, 32)."""
    factor = dataset.manifest.side // SIDE
    pixels = (torch.from_numpy(dataset.all_pixels[row].copy()) for row in dataset.indices(split="train"))
    return torch.stack([F.avg_pool2d(each.permute(2, 0, 1).float(), factor).round().byte() for each in pixels])


def _captions(dataset: Dataset, stride: int) -> list[str]:
    return sorted({text for picture in training_pictures(dataset) for text in picture.captions[::stride]})


def _joined(*several: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for some in several for text in some))


def _batched(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))
