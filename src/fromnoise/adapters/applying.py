"""Adapters on a model's parts, and off again with every weight bit-equal to before.

Nothing is ever added to a weight in place or subtracted from one. Fused, a layer gets another weight and the tensor it
had is put back; as a side path, the layer's output is added to. Both are undone by forgetting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Self

from torch import nn

from fromnoise.adapters.embedding import Embedding
from fromnoise.adapters.keys import layers
from fromnoise.adapters.learning import Learning
from fromnoise.adapters.matching import Matched, match
from fromnoise.adapters.patches import Beside, Fused, Patch, Weighed, all_off, all_on
from fromnoise.adapters.reading import Adapter
from fromnoise.adapters.tokens import Rows, prompts_with
from fromnoise.adapters.turns import turns_of
from fromnoise.nn.eight_bit import EightBit
from fromnoise.runtime.log import note, warn
from fromnoise.runtime.memory import kept
from fromnoise.text import PromptEncoder

Modules = Mapping[str, nn.Module]
"""A model's parts by diffusers' folder names: unet, text_encoder, text_encoder_2."""


@dataclass(frozen=True)
class Use:
    """An adapter and how strongly it acts on the U-Net and on the text encoders; `text` None is as on the U-Net."""

    adapter: Adapter
    unet: float = 1.0
    text: float | None = None

    def weight(self, part: str) -> float:
        """How strongly it acts on a part."""
        return self.unet if part == "unet" or self.text is None else self.text


class Adapted:
    """A model's parts with adapters, for as long as a `with` block lasts; in several threads, in turns.

    Threads whose adapters are the same (the same Adapted, or none at all) run side by side. Others wait for one
    another, so that each gets its own picture; a drawing had better enter anew for every call of a network than hold
    the block from its first step to its last. An Adapted may be entered any number of times and keeps what it made.
    """

    def __init__(
        self,
        modules: Modules,
        uses: Iterable[Use] = (),
        embeddings: Iterable[Embedding] = (),
        *,
        fused: bool = True,
        learning: bool = False,
    ) -> None:
        """Match everything and change nothing yet.

        `fused` false acts as side paths; `learning` as well, in a way that is fast to learn with where the model's own
        weights are frozen. Raises FromnoiseError for an adapter that matches nothing or belongs to
        another family; a warning says which of an adapter's layers the model lacks.
        """
        self.modules, self.uses, self.embeddings = modules, tuple(uses), tuple(embeddings)
        self.fused, self.learning = fused, learning
        self.matched = tuple(match(use.adapter, modules) for use in self.uses)
        for each in self.matched:
            _tell(each)
        self.patches = {part: self._made(part) for part in modules}
        self._prompts: tuple[PromptEncoder, PromptEncoder] | None = None
        self._order = sorted(modules, key=lambda part: id(modules[part]))  # one order for all, so that nobody deadlocks

    def __enter__(self) -> Self:
        with kept() if self.missing else nullcontext(), ExitStack() as undo:
            for part in self._order:
                patches = self.patches[part]
                turns_of(self.modules[part]).enter(self if patches else None, partial(all_on, patches))
                undo.callback(self._leave, part)
            undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        for part in reversed(self._order):
            self._leave(part)

    def _leave(self, part: str) -> None:
        turns_of(self.modules[part]).leave(partial(all_off, self.patches[part]))

    @property
    def missing(self) -> int:
        """How many numbers of weights are still to be summed when it is first entered."""
        return sum(each.missing for part in self.patches.values() for each in part if isinstance(each, Fused))

    def prompts(self, base: PromptEncoder) -> PromptEncoder:
        """The prompt encoder to use inside the block: `base` itself where the text encoders stay as they are.

        Otherwise one of its own memory, which knows the embeddings' tokens; the same one for the same `base`.
        """
        if not any(self.patches[part] for part in self.modules if part != "unet"):
            return base
        if self._prompts is None or self._prompts[0] is not base:
            self._prompts = base, prompts_with(base, self.modules, self.embeddings)
        return self._prompts[1]

    def _made(self, part: str) -> list[Patch]:
        rows, deltas = Rows.patches(part, self.modules, self.embeddings), self._deltas(part)
        if self.learning and (rows or deltas or part == "unet"):
            found = layers(self.modules[part]).items()
            return [*(Learning(each, deltas.get(name, [])) for name, each in found), *rows]
        return [*map(self._patch, deltas.values()), *rows]

    def _patch(self, deltas: Weighed) -> Patch:
        """Fused or as a side path; a weight in 8 bits has no room for an adapter, which acts beside it."""
        layer = deltas[0][1].layer
        return (Fused if self.fused and not isinstance(layer, EightBit) else Beside)(layer, deltas)

    def _deltas(self, part: str) -> dict[str, Weighed]:
        """What is added to each layer of a part; adapters of weight 0 are left out."""
        deltas: dict[str, Weighed] = {}
        for use, matched in zip(self.uses, self.matched, strict=True):
            if strength := use.weight(part):
                for name, place in matched.places.get(part, {}).items():
                    deltas.setdefault(name, []).append((strength, place))
        return deltas


def applied(
    modules: Modules, uses: Iterable[Use] = (), embeddings: Iterable[Embedding] = (), *, fused: bool = True
) -> Adapted:
    """`with applied(modules, [Use(adapter, 0.8)]):` has the adapters on inside the block and off after it."""
    return Adapted(modules, uses, embeddings, fused=fused)


def _tell(matched: Matched) -> None:
    (warn if matched.unplaced else note)(str(matched))
