"""Prompts to tokens to the states that condition a drawing."""

from fromnoise.text.encoding import TextEncoder
from fromnoise.text.known import KnownConcepts, Near
from fromnoise.text.tokenizer import Tokenizer

__all__ = ["KnownConcepts", "Near", "TextEncoder", "Tokenizer"]
