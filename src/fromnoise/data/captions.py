"""The wordings that a picture is trained with: by label, synonym, kind, gloss and tags, with its style and without.

Which wording is used when is decided in training from (seed, epoch, sample id); here they are only listed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, product

from fromnoise.data.sources import PictureSet
from fromnoise.data.splits import fraction

__all__ = [
    "MAX_WORDS",
    "Vocabulary",
    "allowed",
    "captions",
    "clean",
    "fold_plural",
    "in_style",
    "short_gloss",
    "with_article",
    "words",
]

MAX_WORDS = 22
"""No wording is longer, so that it fits into the text encoder's 32 positions."""

_GLOSS_WORDS = 14

# {it} is the label with its article, {styled} the style and the label with theirs.
_STYLED_LABEL = (
    "{it}, {style} style",
    "{style} style {label}",
    "{style} style drawing of {it}",
    "{it} in {style} style",
    "{label}, {style} style",
    "{style} {label}",
    "{style} style picture of {it}",
    "{it} drawn in {style} style",
    "{style} style emoji of {it}",
    "emoji of {it}, {style} style",
    "{styled}",
    "illustration of {it}, {style} style",
)
_STYLED_OTHER = (
    "{it}, {style} style",
    "{style} style, {it}",
    "{it} in {style} style",
    "{style} style drawing of {it}",
    "{style} style picture of {it}",
    "{it}, {style}",
)
_PLAIN_LABEL = ("picture of {it}", "{it}, {tag}", "drawing of {it}", "{label}, {tag}")

_STYLED_BY_LABEL = 8
_PLAIN_BY_LABEL = 4
_STYLED_BY_OTHER = 8
_PLAIN_BY_OTHER = 4

# Stuff, games and other nouns that stand without an article.
_STUFF = """
bread bacon broccoli garlic butter salt popcorn sushi oden dango sake ice food cheese spaghetti falafel fondue custard
candy rice milk corn tea mate rain fire fog foggy snow wind water blood wood paper yarn thread confetti money soap dna
meat luggage construction camping cooking sunrise sunset bowling fishing baseball softball basketball volleyball tennis
badminton football hockey rail fuji pong lacrosse curling mail locked unlocked voltage coral
"""
_NO_ARTICLE = frozenset(_STUFF.split())


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
    phrases = [*map(with_article, said.synonyms), *_rotated(_other_phrases(said), picture_id, "phrases")]
    names = _style_phrases(style, picture_id)
    listed = [
        *_plain_by_label(picture_id, said),
        *phrases[:_PLAIN_BY_OTHER],
        *_styled_by_label(picture_id, said, names),
        *_styled_by_other(picture_id, phrases, names),
    ]
    return tuple(dict.fromkeys(text for text in map(clean, listed) if allowed(text, reserved)))


def allowed(text: str, reserved: frozenset[str]) -> bool:
    """True where a cleaned text may caption a picture: 1 to MAX_WORDS words, none of them reserved."""
    said = words(text)
    return 0 < len(said) <= MAX_WORDS and not any(fold_plural(word) in reserved or word in reserved for word in said)


def in_style(phrase: str, style: PictureSet, chance: float) -> str:
    """The phrase with the style's name or look, in the wording that `chance` in [0, 1) picks."""
    wordings = list(product(_STYLED_OTHER, (*style.style_names, *style.style_looks)))
    template, name = wordings[int(chance * len(wordings))]
    return clean(template.format(it=phrase, style=name))


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


_LOOSE_ENDS = """
a an the of or and with that which in on to for by from as is are its having used at be when some any than whose into
"""
_DANGLING = frozenset(_LOOSE_ENDS.split())


_DETAIL = re.compile(r" (with|without|of|in|on|at|from|and|behind|over|showing)\b.*")


def _article(phrase: str) -> str:
    last = _DETAIL.sub("", phrase.lower()).split()[-1]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is", "os"))
    if plural or phrase[:1].isupper() or last in _NO_ARTICLE or phrase.split()[0] in {"a", "an", "the", "any"}:
        return ""
    return "an" if re.match(r"[aeio]|u(?!ni|s)", phrase.lower()) else "a"


def _plain_by_label(picture_id: str, said: Vocabulary) -> Iterator[str]:
    it, tags = with_article(said.label), said.tags or (said.label,)
    yield from (said.label, it)
    for template in _rotated(_PLAIN_LABEL, picture_id, "plain")[: _PLAIN_BY_LABEL - 2]:
        yield template.format(it=it, label=said.label, tag=_rotated(tags, picture_id, template)[0])


def _styled_by_label(picture_id: str, said: Vocabulary, names: Sequence[str]) -> Iterator[str]:
    it = with_article(said.label)
    templates = _rotated(_STYLED_LABEL, picture_id, "styled")[:_STYLED_BY_LABEL]
    for template, style in zip(templates, cycle(names), strict=False):
        styled = f"{style} {said.label}" if it == said.label else with_article(f"{style} {said.label}")
        yield template.format(it=it, label=said.label, style=style, styled=styled)


def _styled_by_other(picture_id: str, phrases: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    templates = _rotated(_STYLED_OTHER, picture_id, "other")
    for phrase, template, style in zip(phrases[:_STYLED_BY_OTHER], cycle(templates), cycle(names), strict=False):
        yield template.format(it=phrase, style=style)


def _other_phrases(said: Vocabulary) -> list[str]:
    """What is neither label nor synonym: the label with its kinds, the gloss, tags with and without the label."""
    phrases = [f"{with_article(said.label)}, a kind of {kind}" for kind in said.kinds[:1]]
    phrases += [f"{said.label}, {kind}" for kind in said.kinds[1:2]]
    if said.gloss:
        phrases += [said.gloss, f"{said.label}, {said.gloss}"]
    phrases += [f"{said.tags[0]}, {tag}" for tag in said.tags[1:2]]
    phrases += [f"{said.label}, {tag}" for tag in said.tags[:3]]
    return phrases


def _style_phrases(style: PictureSet, picture_id: str) -> list[str]:
    """Names and looks of a style by turns, so that half of the wordings name it and half describe it."""
    names = _rotated(style.style_names, picture_id, "names")
    looks = _rotated(style.style_looks, picture_id, "looks")
    return [names[0], looks[0], names[0], looks[1 % len(looks)], names[1 % len(names)]]


def _rotated(items: Sequence[str], picture_id: str, salt: str) -> list[str]:
    """The items in the picture's own order."""
    return sorted(items, key=lambda item: fraction(salt, picture_id, item))
