"""The words that pictures get while a model learns them: short templates, and which tokens may be new."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fromnoise.pipeline import Pipeline
from fromnoise.runtime.errors import UsageError

SUBJECT = (
    "a picture of {}",
    "{}",
    "an image of {}",
    "a drawing of {}",
    "one {}",
    "{} up close",
    "{} in the middle",
)
STYLE = ("{} style", "a picture, {} style", "a drawing, {} style", "drawn in {} style", "something in {} style")
STYLED = ("{caption}, {token} style", "{caption} in {token} style", "a picture of {caption}, {token} style")
"""What a style's pictures are called when captions say what they show."""

_GRAMMAR = re.compile(r"[\s()\[\]{}|\\:,]")


def worded(caption: str | None, token: str, *, style: bool = False) -> tuple[str, ...]:
    """The captions that a picture may get, all with the token in them.

    A caption that has the token is used as it is; another says what a style's picture shows.
    """
    if caption and token.lower() in caption.lower():
        return (caption,)
    if caption and style:
        return tuple(each.format(caption=caption, token=token) for each in STYLED)
    return tuple(each.format(token) for each in (STYLE if style else SUBJECT))


def spread(texts: Iterable[str], count: int) -> tuple[str, ...]:
    """At most `count` different texts, evenly from all."""
    distinct = list(dict.fromkeys(texts))
    return tuple(distinct[:: max(1, len(distinct) // count)][:count])


def require_sayable(token: str) -> None:
    """UsageError for a token that the prompt's grammar would take apart."""
    if not token or _GRAMMAR.search(token):
        raise UsageError(f"{token!r} can't be a token: no blanks, commas, colons or brackets but <>; try <my-cat>")


def require_new_word(pipeline: Pipeline, token: str) -> None:
    """UsageError for a token that is a word already, or that the prompt's grammar would take apart."""
    require_sayable(token)
    for encoder in pipeline.prompts.encoders:
        if len(encoder.tokenizer.ids(token)) < 2:
            raise UsageError(f"{token!r} is a word that the model has already; try <{token}>, or another one")
