"""The wordings that a picture is trained with: by label, synonym, kind, gloss and tags, with its style and without.

Which wording is used when is decided in training from (seed, epoch, sample id); here they are only listed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fromnoise.data.sources import PictureSet
from fromnoise.data.splits import fraction

__all__ = ["MAX_WORDS", "Vocabulary", "captions", "clean", "fold_plural", "short_gloss", "with_article", "words"]

MAX_WORDS = 22
"""No wording is longer, so that it fits into the text encoder's 32 positions."""

_GLOSS_WORDS = 14

_STYLED_LABEL = (
    "{a} {label}, {style} style",
    "{style} style {label}",
    "{style} style drawing of {a} {label}",
    "{a} {label} in {style} style",
    "{label}, {style} style",
    "{style} {label}",
    "{style} style picture of {a} {label}",
    "{a} {label} drawn in {style} style",
    "{style} style emoji of {a} {label}",
    "{style}: {label}",
    "{a} {style} {label}",
    "illustration of {a} {label}, {style} style",
)
_STYLED_OTHER = (
    "{subject}, {style} style",
    "{style} style, {subject}",
    "{subject} in {style} style",
    "{style} style drawing of {subject}",
    "{style} style picture of {subject}",
    "{subject}, {style}",
)
_PLAIN_LABEL = (
    "{label}",
    "{a} {label}",
    "picture of {a} {label}",
    "{a} {label}, {tag}",
    "drawing of {a} {label}",
    "{label}, {tag}",
)

_STYLED_BY_LABEL = 8
_PLAIN_BY_LABEL = 4
_STYLED_BY_OTHER = 8
_PLAIN_BY_OTHER = 4

_NO_ARTICLE = frozenset(
    "bread bacon broccoli garlic butter salt popcorn sushi oden dango sake ice bubbles rain fire wood money "
    "food cheese spaghetti falafel fondue custard candy rice milk corn tea soap dna meat luggage construction "
    "paper camping cooking sunrise sunset foggy wind yarn thread bowling fishing skiing soccer baseball softball "
    "basketball volleyball tennis badminton golf curling sled jeans fries grapes scissors joy sweat fear kabaddi "
    "dust snow fog confetti jewelry e-mail mail mate water blood grass honey".split()
)


@dataclass(frozen=True)
class Vocabulary:
    """What there is to say about a concept besides its label; phrases carry their articles."""

    label: str
    synonyms: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    gloss: str | None = None
    tags: tuple[str, ...] = ()


def captions(picture_id: str, said: Vocabulary, style: PictureSet, reserved: frozenset[str]) -> tuple[str, ...]:
    """The distinct wordings of one picture, a third of them without a style.

    None holds a word of `reserved`, in singular or plural, or more than MAX_WORDS words. The picture's id
    decides which of the wordings it gets, so that every form occurs with every style.
    """
    phrases = _rotated(_other_phrases(said), picture_id, "phrases")
    names = _style_phrases(style, picture_id)
    listed = [
        *_plain_by_label(picture_id, said),
        *phrases[:_PLAIN_BY_OTHER],
        *_styled_by_label(picture_id, said, names),
        *_styled_by_other(picture_id, phrases, names),
    ]
    return tuple(dict.fromkeys(text for text in map(clean, listed) if _allowed(text, reserved)))


def clean(text: str) -> str:
    """Lower case, ASCII letters, digits, hyphens and commas, single blanks."""
    folded = unicodedata.normalize("NFKD", text.replace("’", "'")).encode("ascii", "ignore").decode().lower()
    return re.sub(r" +", " ", re.sub(r"[^a-z0-9,' -]+", " ", folded)).replace(" ,", ",").strip(" ,")


def words(text: str) -> list[str]:
    """The words of a cleaned text, hyphenated ones in parts."""
    return re.findall(r"[a-z0-9']+", text)


def fold_plural(word: str) -> str:
    """One spelling for a word's singular and its regular plural."""
    for ending, singular in (("'s", ""), ("ies", "y"), ("ses", "s"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + singular
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def with_article(phrase: str) -> str:
    """The phrase after "a" or "an", or bare where it takes none: plurals, stuff, names."""
    return f"{_article(phrase)} {phrase}".strip()


def short_gloss(gloss: str) -> str:
    """A dictionary's definition without brackets, examples and asides, at most 14 words long."""
    text = re.sub(r"\([^)]*\)|\"[^\"]*\"?", "", gloss).split(";")[0].split(":")[0]
    kept = clean(text).split()
    if len(kept) > _GLOSS_WORDS:
        kept = kept[:_GLOSS_WORDS]
        while kept and kept[-1].strip(",") in _DANGLING:
            kept.pop()
    return " ".join(kept).strip(" ,")


_DANGLING = frozenset("a an the of or and with that which in on to for by from as is are its having used at be".split())


_DETAIL = re.compile(r" (with|without|of|in|on|at|from|and|behind|over|showing)\b.*")


def _article(phrase: str) -> str:
    last = _DETAIL.sub("", phrase.lower()).split()[-1]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is", "os"))
    if plural or phrase[:1].isupper() or last in _NO_ARTICLE or phrase.split()[0] in {"a", "an", "the", "any"}:
        return ""
    return "an" if re.match(r"[aeio]|u(?!ni|s)", phrase.lower()) else "a"


def _plain_by_label(picture_id: str, said: Vocabulary) -> Iterator[str]:
    first, second, *others = _PLAIN_LABEL
    for template in (first, second, *_rotated(others, picture_id, "plain")[: _PLAIN_BY_LABEL - 2]):
        yield _fill(template, said, tag=_one(said.tags or (said.label,), picture_id, template))


def _styled_by_label(picture_id: str, said: Vocabulary, names: Sequence[str]) -> Iterator[str]:
    templates = _rotated(_STYLED_LABEL, picture_id, "styled")[:_STYLED_BY_LABEL]
    for number, template in enumerate(templates):
        yield _fill(template, said, style=names[number % len(names)])


def _styled_by_other(picture_id: str, phrases: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    templates = _rotated(_STYLED_OTHER, picture_id, "other")
    for number, phrase in enumerate(phrases[: 2 * _STYLED_BY_OTHER]):
        if number < _STYLED_BY_OTHER:
            yield templates[number % len(templates)].format(subject=phrase, style=names[number % len(names)])


def _fill(template: str, said: Vocabulary, **parts: str) -> str:
    """The template with label and article; before a style the article must suit the style's first letter."""
    if template.startswith("{a} {style}"):
        bare = not _article(said.label)
        return (
            template.removeprefix("{a} " if bare else "{a}").format(label=said.label, **parts)
            if bare
            else (with_article(template.removeprefix("{a} ").format(label=said.label, **parts)))
        )
    return template.format(a=_article(said.label), label=said.label, **parts)


def _other_phrases(said: Vocabulary) -> list[str]:
    """Everything that is no label: synonyms, label with its kind, gloss, tags with and without the label."""
    phrases = [with_article(synonym) for synonym in said.synonyms]
    phrases += [f"{with_article(said.label)}, a kind of {kind}" for kind in said.kinds[:1]]
    phrases += [f"{kind}: {said.label}" for kind in said.kinds[1:2]]
    if said.gloss:
        phrases += [said.gloss, f"{said.label}, {said.gloss}"]
    phrases += [f"{said.tags[0]}, {tag}" for tag in said.tags[1:3]]
    phrases += [f"{said.label}, {tag}" for tag in said.tags[:3]]
    return phrases


def _style_phrases(style: PictureSet, picture_id: str) -> list[str]:
    """Names and looks of a style by turns, so that half of the wordings name it and half describe it."""
    names = _rotated(style.style_names, picture_id, "names")
    looks = _rotated(style.style_looks, picture_id, "looks")
    return [names[0], looks[0], names[0], looks[1 % len(looks)], names[1 % len(names)]]


def _allowed(text: str, reserved: frozenset[str]) -> bool:
    said = words(text)
    return 0 < len(said) <= MAX_WORDS and not any(fold_plural(word) in reserved or word in reserved for word in said)


def _rotated(items: Sequence[str], picture_id: str, salt: str) -> list[str]:
    """The items in the picture's own order."""
    return sorted(items, key=lambda item: fraction(salt, picture_id, item))


def _one(items: Iterable[str], picture_id: str, salt: str) -> str:
    return _rotated(list(items), picture_id, salt)[0]
