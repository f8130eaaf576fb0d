"""Adapters that stay on a model, for whoever uses it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from fromnoise.adapters.applying import Adapted, Modules, Use
from fromnoise.adapters.matching import Matched
from fromnoise.adapters.patches import all_off, all_on
from fromnoise.adapters.reading import Adapter
from fromnoise.adapters.turns import turns_of
from fromnoise.runtime.errors import UsageError


class Stack:
    """Adapters that stay on a model's parts until they are taken off, whoever uses them."""

    def __init__(self, modules: Modules, *, fused: bool = False) -> None:
        """An empty stack; `fused` as in `Adapted`."""
        self.modules, self.fused = modules, fused
        self._uses: dict[str, Use] = {}
        self._now = Adapted(modules)

    @property
    def uses(self) -> Sequence[Use]:
        """What is on, in the order in which it was put on."""
        return tuple(self._uses.values())

    def add(self, adapter: Adapter, unet: float = 1.0, text: float | None = None) -> Matched:
        """Put an adapter on, and report what of it matched; UsageError when one of its name is on."""
        if adapter.name in self._uses:
            raise UsageError(f"an adapter called {adapter.name!r} is on already; weigh it, or give it another name")
        self._change({**self._uses, adapter.name: Use(adapter, unet, text)})
        return self._now.matched[-1]

    def weigh(self, name: str, unet: float, text: float | None = None) -> None:
        """Give an adapter other weights."""
        self._change({**self._uses, name: replace(self._named(name), unet=unet, text=text)})

    def remove(self, name: str) -> None:
        """Take an adapter off."""
        self._named(name)
        self._change({each: use for each, use in self._uses.items() if each != name})

    def clear(self) -> None:
        """Take all off: every weight is what it was, bit for bit."""
        self._change({})

    def fuse(self, fused: bool = True) -> None:
        """From side paths to fused weights, or back: the fused model runs as fast as the plain one."""
        self.fused = fused
        self._change(self._uses)

    def _named(self, name: str) -> Use:
        if name not in self._uses:
            raise UsageError(f"no adapter called {name!r} is on; there are {', '.join(self._uses) or 'none'}")
        return self._uses[name]

    def _change(self, uses: dict[str, Use]) -> None:
        """Swap what is on for `uses` while nobody uses the modules."""
        new = Adapted(self.modules, uses.values(), fused=self.fused)
        with ExitStack() as stack:
            for module in sorted(self.modules.values(), key=id):
                turns = turns_of(module)
                turns.enter(new, _nothing)
                stack.callback(turns.leave, _nothing)
            for part in self.modules:
                all_off(self._now.patches[part])
                all_on(new.patches[part])
        self._uses, self._now = uses, new


def _nothing() -> None:
    pass
