"""Pictures by other tools: what they say about themselves, into a Request as far as they say it.

Nothing here raises for what a file holds: a picture with damaged metadata stays a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fromnoise.images.foreign.comfyui import read_comfyui
from fromnoise.images.foreign.invokeai import read_invokeai
from fromnoise.images.foreign.others import read_diffusers, read_novelai
from fromnoise.images.settings import Settings

READERS: tuple[Callable[[Mapping[str, str]], Settings | None], ...] = (
    read_invokeai,
    read_novelai,
    read_comfyui,
    read_diffusers,
)
"""Each takes a picture's texts by their names, and gives None when they aren't its own; the first to know them wins."""


def read_foreign(texts: Mapping[str, str]) -> Settings | None:
    """From a picture's text chunks by name; None when no tool we know wrote them."""
    return next((found for reader in READERS if (found := reader(texts)) is not None), None)
