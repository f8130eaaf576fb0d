"""Tokens that a textual inversion adds: rows behind an encoder's table, and a tokenizer that knows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fromnoise.adapters.embedding import Embedding, joined_rows, rows_of, text_encoders
from fromnoise.adapters.patches import Forward, Rerouted
from fromnoise.runtime.errors import UsageError
from fromnoise.text import PromptEncoder, TextEncoder, Tokenizer


class Rows(Rerouted):
    """Vectors that an encoder's table gives for ids behind its last one. The table itself stays as it is."""

    def __init__(self, table: nn.Embedding, rows: Sequence[Tensor]) -> None:
        super().__init__(table)
        self.table, self.rows = table, list(rows)

    @classmethod
    def patches(cls, part: str, modules: Mapping[str, nn.Module], embeddings: Sequence[Embedding]) -> list[Rows]:
        """What embeddings change in a part: nothing, or its table."""
        rows = rows_of(tuple(embeddings), modules).get(part) if embeddings else None
        if not rows:
            return []
        return [cls(text_encoders(modules)[part].text_model.embeddings.token_embedding, rows)]

    def around(self, plain: Forward) -> Forward:
        """Ids behind the last one are read from the rows."""
        count, rows = self.table.num_embeddings, joined_rows(self.rows, self.table.weight)

        def forward(ids: Tensor) -> Tensor:
            added = ids >= count
            known = plain(ids.masked_fill(added, 0))
            return torch.where(added[..., None], rows[(ids - count).clamp(min=0)], known)

        return forward


class WithTokens(Tokenizer):
    """A tokenizer that knows more tokens, each of which becomes one id or several; the one it is made from stays.

    A token counts where it stands by itself, in either case of letters: `cat-toy` is not found in `cat-toys`.
    """

    def __init__(self, base: Tokenizer, tokens: Mapping[str, Sequence[int]]) -> None:
        vars(self).update(vars(base))  # its vocabulary and machine are shared, never changed
        self._ids = {token.lower(): list(ids) for token, ids in tokens.items()}
        self._names = {id: token for token, ids in tokens.items() for id in ids}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_alone, longest_first)), re.IGNORECASE)

    def ids(self, prompt: str) -> list[int]:
        """The ids of the prompt's pieces and tokens, without start and end."""
        return [id for whole in self.wholes(prompt) for id in whole]

    def wholes(self, prompt: str) -> list[list[int]]:
        """The same, all vectors of a token in one list."""
        wholes: list[list[int]] = []
        at = 0
        for match in self._pattern.finditer(prompt):
            wholes += [*self._singles(prompt[at : match.start()]), self._ids[match[0].lower()]]
            at = match.end()
        return wholes + self._singles(prompt[at:])

    def _singles(self, text: str) -> list[list[int]]:
        return [[id] for id in super().ids(text)]

    def piece(self, id: int) -> str:
        """An id as the vocabulary spells it, or its token."""
        return self._names[id] if id in self._names else super().piece(id)

    def text(self, ids: Sequence[int]) -> str:
        """The words that ids spell, and tokens as often as they have vectors."""
        runs: list[list[int]] = [[]]
        for id in ids:
            if id in self._names or (runs[-1] and runs[-1][-1] in self._names):
                runs.append([])
            runs[-1].append(id)
        return " ".join(self._names[run[0]] if run[0] in self._names else super(WithTokens, self).text(run)
                        for run in runs if run)  # fmt: skip


def added_ids(embeddings: Sequence[Embedding], rows: Sequence[Tensor], first: int) -> dict[str, list[int]]:
    """The ids of each token, behind a table of `first` rows; UsageError for a token that is there twice."""
    ids: dict[str, list[int]] = {}
    for embedding, own in zip(embeddings, rows, strict=True):
        if embedding.token in ids:
            raise UsageError(f"two embeddings are called {embedding.token!r}; give one of them another token")
        ids[embedding.token] = list(range(first, first + len(own)))
        first += len(own)
    return ids


def prompts_with(
    base: PromptEncoder, modules: Mapping[str, nn.Module], embeddings: Sequence[Embedding]
) -> PromptEncoder:
    """A prompt encoder with the same encoders and a memory of its own, whose tokenizers know the embeddings' tokens."""
    rows = rows_of(tuple(embeddings), modules)
    parts = {id(module): part for part, module in modules.items()}
    made = []
    for encoder in base.encoders:
        own = rows.get(parts.get(id(encoder.clip_text), ""), [])
        made.append(TextEncoder(_tokenizer(encoder, embeddings, own) if own else encoder.tokenizer, encoder.clip_text))
    return PromptEncoder(made, base.reading, cached=base.cached, wake=base.wake)


def _tokenizer(encoder: TextEncoder, embeddings: Sequence[Embedding], rows: Sequence[Tensor]) -> Tokenizer:
    return WithTokens(encoder.tokenizer, added_ids(embeddings, rows, encoder.clip_text.config.vocab_size))


def _alone(token: str) -> str:
    """A pattern for the token by itself: no letter or digit goes on where it begins or ends with one."""
    before = r"(?<!\w)" if re.match(r"\w", token) else ""
    after = r"(?!\w)" if re.search(r"\w$", token) else ""
    return before + re.escape(token) + after
