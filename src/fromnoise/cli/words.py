"""A single word: a thing to draw, or a command mistyped?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE = 0.75
"""difflib's ratio from which a word is near a command."""

SURE = 0.55
"""The cosine with a known concept from which a word near a command is that thing's name.

In the embedded model "bull" has 0.57 (bison), "rain" 0.73, "chair" 0.92; slips of the keys stay below 0.53.
"""


def mistyped(word: str, commands: Iterable[str]) -> str | None:
    """The command that was probably meant; None for a word that is near none, or names a thing that is known."""
    word = word.strip().lower()
    near = difflib.get_close_matches(word, commands, n=1, cutoff=CLOSE)
    if not near:
        return None
    same = word.rstrip("s") == near[0].rstrip("s")  # step, models: never a thing
    return near[0] if same or not _is_known(word) else None


def _is_known(word: str) -> bool:
    """True where the embedded model knows something of that name."""
    from fromnoise.pipeline.loading import text_encoders
    from fromnoise.runtime.paths import EMBEDDED_MODEL
    from fromnoise.text.known import KnownConcepts

    known = KnownConcepts.read(EMBEDDED_MODEL)
    if known is None:
        return False
    [encoder] = text_encoders(EMBEDDED_MODEL)
    whole = len(encoder.tokenizer.ids(word)) == 1  # of a slip in pieces one may well be a thing: inpi·ant
    return whole and known.nearest(encoder, word, 1)[0].cosine >= SURE
