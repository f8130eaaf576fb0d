"""Prompts to what the U-Net reads: the state of every position, causal and unmasked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fromnoise.models.clip_text import ClipText
from fromnoise.text.tokenizer import Tokenizer


class TextEncoder:
    """A tokenizer and CLIP's text model as one thing that a pipeline can call."""

    def __init__(self, tokenizer: Tokenizer, clip_text: ClipText) -> None:
        self.tokenizer, self.clip_text = tokenizer, clip_text

    @property
    def device(self) -> torch.device:
        """Where the model lives, and so where states are made."""
        return next(self.clip_text.parameters()).device

    def encode(self, prompts: Sequence[str], *, clip_skip: int = 1) -> Tensor:
        """States (B, M, C) of all M = max_length positions, padding too: what diffusers' pipeline feeds the U-Net.

        `clip_skip` counts layers from the end as the AUTOMATIC1111 web UI does: 1 is the last, 2 the one before. The
        empty prompt is "" encoded.
        """
        return self.clip_text(self.tokenizer.encode(prompts).to(self.device), clip_skip - 1)

    @torch.inference_mode()
    def sentences(self, prompts: Sequence[str]) -> Tensor:
        """The end-token states (B, C), without gradients: what each prompt means as a whole."""
        tokens = self.tokenizer.encode(prompts)
        # Causal attention: what stands behind the last end token changes nothing before it.
        ends = (tokens == self.tokenizer.end).int().argmax(1)
        tokens = tokens[:, : int(ends.max()) + 1].to(self.device)
        return self.clip_text.sentence(tokens, self.clip_text(tokens))
