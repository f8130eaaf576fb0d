"""Adapters: LoRA, LoHa, LoKr and textual inversion, put on, weighed and taken off; checkpoints merged."""

from fromnoise.adapters.applying import Adapted, Use, applied
from fromnoise.adapters.embedding import Embedding, read_embedding, write_embedding
from fromnoise.adapters.extracting import Extracted, extract
from fromnoise.adapters.factors import Factors, Loha, Lokr, Lora
from fromnoise.adapters.finding import find_adapter, names_in
from fromnoise.adapters.hashing import adapter_hash
from fromnoise.adapters.matching import Matched, match
from fromnoise.adapters.merging import merged
from fromnoise.adapters.reading import Adapter, read_adapter
from fromnoise.adapters.stack import Stack
from fromnoise.adapters.writing import Layout, write_lora

__all__ = [
    "Adapted",
    "Adapter",
    "Embedding",
    "Extracted",
    "Factors",
    "Layout",
    "Loha",
    "Lokr",
    "Lora",
    "Matched",
    "Stack",
    "Use",
    "adapter_hash",
    "applied",
    "extract",
    "find_adapter",
    "match",
    "merged",
    "names_in",
    "read_adapter",
    "read_embedding",
    "write_embedding",
    "write_lora",
]
