"""More ways to ask for a picture: what the dictionary says that the text encoder's teacher finds near its concept."""

from __future__ import annotations

from fromnoise.data import Dataset
from fromnoise.data.building import reserved_words
from fromnoise.data.captions import allowed
from fromnoise.training.lessons import choose_texts, is_plain, plain_captions, reworded_prompts, training_pictures
from fromnoise.training.teacher import Teacher

NEAR = 0.5
"""The least cosine of a text's vector with its concept's: three in four reworded prompts are as near.

A third of what is nearer than 0.6 means something else by eye, but the text encoder, whose teacher this is, takes it
for the same concept, and what is to be drawn is what the encoder says.
"""


def rewordings(dataset: Dataset, teach: Teacher) -> dict[str, tuple[str, ...]]:
    """By code points of a concept, the texts that are no captions and nearer to it than to any other concept.

    None names a style or holds a reserved word, so that the held-out reworded prompts stay unseen.
    """
    texts = choose_texts(dataset, teach, reworded_prompts(), near=NEAR, far=0.0, stride=2, seed=0)
    reserved, concepts = reserved_words(), tuple(plain_captions(training_pictures(dataset)))
    meant = (texts.vectors[texts.captions :].float() @ texts.concepts.T).argmax(1).tolist()
    found: dict[str, list[str]] = {}
    for text, row in zip(texts.texts[texts.captions :], meant, strict=True):
        if is_plain(text) and allowed(text, reserved):
            found.setdefault(concepts[row], []).append(text)
    return {concept: tuple(some) for concept, some in found.items()}
