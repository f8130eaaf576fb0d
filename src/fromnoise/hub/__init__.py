"""The Hugging Face Hub: what is fetched from it, what is published on it, and what is here already. No torch needed."""

from fromnoise.hub.pulled import found, name_of

__all__ = ["found", "name_of"]
