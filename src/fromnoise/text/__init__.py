"""Prompts to tokens to the states that condition a drawing.

Names are imported when first used: reading a prompt and looking at its tokens need no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fromnoise.text.chunks import read
    from fromnoise.text.conditioning import Conditioning, mix
    from fromnoise.text.encoding import TextEncoder
    from fromnoise.text.grammar import Composed, Prompt, later, parse, unparse
    from fromnoise.text.known import KnownConcepts, Near
    from fromnoise.text.linting import lint
    from fromnoise.text.prompting import PromptEncoder
    from fromnoise.text.tokenizer import Tokenizer
    from fromnoise.text.wildcards import resolve

_HOMES = {
    "Composed": "grammar",
    "Conditioning": "conditioning",
    "KnownConcepts": "known",
    "Near": "known",
    "Prompt": "grammar",
    "PromptEncoder": "prompting",
    "TextEncoder": "encoding",
    "Tokenizer": "tokenizer",
    "later": "grammar",
    "lint": "linting",
    "mix": "conditioning",
    "parse": "grammar",
    "read": "chunks",
    "resolve": "wildcards",
    "unparse": "grammar",
}

__all__ = [
    "Composed",
    "Conditioning",
    "KnownConcepts",
    "Near",
    "Prompt",
    "PromptEncoder",
    "TextEncoder",
    "Tokenizer",
    "later",
    "lint",
    "mix",
    "parse",
    "read",
    "resolve",
    "unparse",
]


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fromnoise.text' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fromnoise.text.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
