"""Prompts to what the U-Net reads: the state of every position, causal and unmasked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fromnoise.models.clip_text import ClipText
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.text.tokenizer import Tokenizer


class TextEncoder:
    """A tokenizer and CLIP's text model as one thing that a pipeline can call."""

    def __init__(self, tokenizer: Tokenizer, clip_text: ClipText) -> None:
        """FromnoiseError for a tokenizer with added tokens that the model has no rows for."""
        rows = clip_text.config.vocab_size
        if homeless := [token for id, token in tokenizer.added.items() if id >= rows]:
            raise FromnoiseError(
                f"the tokenizer knows {homeless[0]!r}, which none of the text encoder's {rows} rows is for"
            )
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
        return self.states(self.tokenizer.encode(prompts), clip_skip)

    def states(self, tokens: Tensor, clip_skip: int = 1) -> Tensor:
        """States (B, M, C) of ids (B, M) after the final norm; UsageError for more layers than there are."""
        return self.clip_text(tokens.to(self.device), self._layer(clip_skip) - 1)

    def raw_states(self, tokens: Tensor, clip_skip: int = 1) -> tuple[Tensor, Tensor]:
        """States (B, M, C) before the final norm, and the pooled states (B, P) of whole sentences, as in SDXL."""
        tokens = tokens.to(self.device)
        states = self.clip_text.states(tokens)
        return states[-self._layer(clip_skip)], self.clip_text.pooled(tokens, states[-1])

    @torch.inference_mode()
    def sentences(self, prompts: Sequence[str]) -> Tensor:
        """The end-token states (B, C), without gradients: what each prompt means as a whole."""
        tokens = self.tokenizer.encode(prompts)
        # Causal attention: what stands behind the last end token changes nothing before it.
        ends = (tokens == self.tokenizer.end).int().argmax(1)
        tokens = tokens[:, : int(ends.max()) + 1].to(self.device)
        return self.clip_text.sentence(tokens, self.clip_text(tokens))

    def _layer(self, clip_skip: int) -> int:
        layers = self.clip_text.config.num_hidden_layers
        if not 1 <= clip_skip <= layers:
            raise UsageError(f"clip skip must be from 1 to {layers}, this text encoder's layers, not {clip_skip}")
        return clip_skip
