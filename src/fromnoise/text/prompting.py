"""From prompts to conditioning, for one text encoder (SD 1, SD 2) or two (SDXL)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import torch
from torch import Tensor

from fromnoise.runtime.errors import UsageError
from fromnoise.text.chunks import Chunk, Words, check_weighting, chunk_ids, chunk_prompt, read, said
from fromnoise.text.conditioning import READINGS, Conditioning, Reading
from fromnoise.text.encoding import TextEncoder
from fromnoise.text.tokenizer import Tokenizer
from fromnoise.text.weighting import WEIGHTINGS

__all__ = ["PromptEncoder", "read"]

CACHED = 64
"""Prompts whose states are kept: half a megabyte each in SDXL."""

Chunks = tuple[Chunk, ...]


@dataclass(frozen=True)
class _How:
    """How words become states."""

    weighting: str
    clip_skip: int


@dataclass(frozen=True)
class _Encoded:
    """One prompt's states (N, M, C) of each encoder, and its pooled state (P,)."""

    states: tuple[Tensor, ...]
    pooled: Tensor | None


class PromptEncoder:
    """Makes conditioning of prompts, and remembers what it made. Several threads may use one.

    Each prompt is encoded alone, so what it becomes never depends on the prompts beside it.
    """

    def __init__(
        self,
        encoders: Sequence[TextEncoder],
        reading: Reading = READINGS["sd1"],
        *,
        cached: int = CACHED,
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        """The encoders in order, which of their states are read, and what is to be called before they are needed.

        UsageError when they read different numbers of tokens.
        """
        if len({encoder.tokenizer.max_length for encoder in encoders}) != 1:
            raise UsageError("a model's text encoders must all read the same number of tokens")
        self.encoders, self.reading, self.cached, self.wake = tuple(encoders), reading, cached, wake
        self._made: OrderedDict[object, _Encoded] = OrderedDict()
        self._lock = Lock()

    @property
    def tokenizers(self) -> tuple[Tokenizer, ...]:
        """The tokenizer of each encoder."""
        return tuple(encoder.tokenizer for encoder in self.encoders)

    def encode(
        self, prompts: Sequence[Words], *, weighting: str = "a1111", clip_skip: int | None = None
    ) -> Conditioning:
        """One row for each prompt, padded with empty chunks to as many chunks as the longest has.

        A prompt is what `Prompt.at` gives, or a string, whose brackets weigh and which has no other grammar.
        `clip_skip` counts layers from the end; None is the model's own. UsageError for an unknown weighting.
        """
        how = self._how(weighting, clip_skip)
        return self._stacked([self._cached(each, how) for each in prompts], how)

    def pair(
        self,
        positives: Sequence[Words],
        negative: Words,
        *,
        weighting: str = "a1111",
        clip_skip: int | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """The composed parts (B rows) and the negative prompt (one row), of as many chunks.

        An empty negative prompt is zeros where the model was trained so.
        """
        rows = self.encode([*positives, negative], weighting=weighting, clip_skip=clip_skip)
        positive, last = rows[:-1], rows[-1:]
        if self.reading.zero_negative and not said(negative, weighting).words.strip():
            last = Conditioning(torch.zeros_like(last.words), None if last.pooled is None else last.pooled * 0)
        return positive, last

    def from_ids(self, ids: Sequence[Sequence[int]], *, clip_skip: int | None = None) -> Conditioning:
        """One row for each list of token ids, start and end left out, all of weight 1."""
        how = self._how("none", clip_skip)
        rows = [self._make([chunk_ids(each, own.room) for own in self.tokenizers], how) for each in ids]
        return self._stacked(rows, how)

    def chunks(self, prompt: Words, weighting: str = "a1111") -> list[Chunks]:
        """What each encoder reads of a prompt."""
        return [chunk_prompt(prompt, tokenizer, weighting) for tokenizer in self.tokenizers]

    def forget(self) -> None:
        """Drop all states that are kept; to be called when the encoders' weights change."""
        with self._lock:
            self._made.clear()

    def _how(self, weighting: str, clip_skip: int | None) -> _How:
        return _How(check_weighting(weighting), self.reading.clip_skip if clip_skip is None else clip_skip)

    def _cached(self, prompt: Words, how: _How) -> _Encoded:
        key = (said(prompt, how.weighting).sections, how)
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        made = self._make(self.chunks(prompt, how.weighting), how)
        with self._lock:
            self._made[key] = made
            while len(self._made) > self.cached:
                self._made.popitem(last=False)
        return made

    # The caller may be in inference mode, but what is kept must serve one that wants gradients too.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _make(self, chunks: Sequence[Chunks], how: _How) -> _Encoded:
        self.wake()
        read = [self._read(index, each, how) for index, each in enumerate(chunks)]
        pooled = read[-1][1]
        return _Encoded(tuple(states for states, _ in read), None if pooled is None else pooled[0])

    def _read(self, index: int, chunks: Chunks, how: _How) -> tuple[Tensor, Tensor | None]:
        """Weighted states (N, M, C) of one encoder, and the pooled ones (N, P) where the model reads them."""
        encoder, length = self.encoders[index], self.encoders[index].tokenizer.max_length
        tokens = torch.tensor([encoder.tokenizer.row(chunk.ids) for chunk in chunks])
        if self.reading.raw:
            states, pooled = encoder.raw_states(tokens, how.clip_skip)
        else:
            states, pooled = encoder.states(tokens, how.clip_skip), None
        weights = torch.tensor([chunk.row_weights(length) for chunk in chunks]).to(states)
        if bool((weights != 1.0).any()):
            states = WEIGHTINGS[how.weighting](states, weights, lambda: self._empty(how).states[index])
        return states, pooled

    def _empty(self, how: _How) -> _Encoded:
        return self._cached("", replace(how, weighting="a1111"))

    def _stacked(self, rows: Sequence[_Encoded], how: _How) -> Conditioning:
        count = max(len(states) for row in rows for states in row.states)
        words = [torch.cat([self._padded(row, index, count, how) for index in range(len(self.encoders))], -1)
                 for row in rows]  # fmt: skip
        pooled = [row.pooled for row in rows if row.pooled is not None]
        return Conditioning(torch.stack(words), torch.stack(pooled) if pooled else None)

    def _padded(self, row: _Encoded, index: int, count: int, how: _How) -> Tensor:
        """One encoder's states (count * M, C)."""
        states = row.states[index]
        missing = count - len(states)
        empty = self._empty(how).states[index].expand(missing, -1, -1) if missing else states[:0]
        return torch.cat([states, empty]).flatten(0, 1)
