"""Which adapters a drawing asks for: those of its request, and those that its prompt names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from torch import nn

from fromnoise.adapters import Adapted, Use, find_adapter, read_adapter, read_embedding
from fromnoise.hub import found
from fromnoise.request import Lora, Request
from fromnoise.runtime.errors import UsageError
from fromnoise.text import read

KEPT = 2
"""Sets of adapters kept ready; each holds a second copy of the weights that it changes."""

Asked = tuple[tuple[Lora, ...], tuple[str, ...]]


class Wardrobe:
    """Puts adapters on a pipeline's modules, and keeps the last ones at hand. It may be used from several threads."""

    def __init__(self, modules: Mapping[str, nn.Module], folders: Sequence[Path] = ()) -> None:
        self.modules, self.folders = modules, folders
        self._ready: OrderedDict[Asked, Adapted] = OrderedDict()
        self._lock = Lock()

    def __call__(self, request: Request) -> Adapted:
        """The model as the request wants it; a context manager that each call of a network enters.

        Raises UsageError for an adapter that isn't there, FromnoiseError for one that doesn't fit.
        """
        asked = (*request.loras, *self.named(request)), request.embeddings
        with self._lock:
            if asked not in self._ready:
                self._ready[asked] = self._made(*asked)
            self._ready.move_to_end(asked)
            while len(self._ready) > KEPT:
                self._ready.popitem(last=False)
            return self._ready[asked]

    def named(self, request: Request) -> tuple[Lora, ...]:
        """The `<lora:name:0.8>` tags of the prompt, looked up in the folders; UsageError for other kinds of tags."""
        tags = read(request.prompt, str(request.weighting)).adapters
        for tag in tags:
            if tag.kind not in ("lora", "lyco"):
                raise UsageError(f"no <{tag.kind}:…> here; a prompt may name <lora:name:weight>")
            if not self.folders:
                raise UsageError(f"<lora:{tag.name}> needs a folder to look in; give it with --loras FOLDER")
        return tuple(Lora(str(find_adapter(tag.name, self.folders)), tag.unet, tag.text) for tag in tags)

    def _made(self, loras: tuple[Lora, ...], embeddings: tuple[str, ...]) -> Adapted:
        uses = [Use(read_adapter(found(each.path)), each.weight, each.text) for each in loras]
        return Adapted(self.modules, uses, [read_embedding(found(each)) for each in embeddings])
