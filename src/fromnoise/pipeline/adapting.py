"""Which adapters a drawing asks for: those of its request, and those that its prompt names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from torch import nn

from fromnoise.adapters import Adapted, Use, adapter_hash, find_adapter, names_in, read_adapter, read_embedding
from fromnoise.hub import found
from fromnoise.pipeline.fast import fast_lora, tiny_weights
from fromnoise.request import AdapterHash, Lora, Request
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import TINY, file_state
from fromnoise.text import read

KEPT = 2
"""Sets of adapters kept ready; each holds a second copy of the weights that it changes."""

Asked = tuple[tuple[Lora, ...], tuple[str, ...], tuple[tuple[int, ...], ...]]
"""Adapters, and the states of their files: one that is written anew is read anew."""


class Wardrobe:
    """Puts adapters on a pipeline's modules, and keeps the last ones at hand. It may be used from several threads."""

    def __init__(
        self, modules: Mapping[str, nn.Module], folders: Sequence[Path] = (), model: Path | None = None
    ) -> None:
        """`folders` hold the adapters that prompts name; `model` is the file or folder that the modules are from."""
        self.modules, self.folders, self.model = modules, folders, model
        self.vae: tuple[str, Path] | None = None
        """The name and the file of an autoencoder that isn't the model's own."""
        self._ready: OrderedDict[Asked, Adapted] = OrderedDict()
        self._lock = Lock()

    def __call__(self, request: Request) -> Adapted:
        """The model as the request wants it; a context manager that each call of a network enters.

        Raises UsageError for an adapter that isn't there, FromnoiseError for one that doesn't fit.
        """
        asked = self._asked(self.loras(request), request.embeddings)
        with self._lock:
            if asked not in self._ready:
                self._ready[asked] = self._made(*asked[:2])
            self._ready.move_to_end(asked)
            while len(self._ready) > KEPT:
                self._ready.popitem(last=False)
            return self._ready[asked]

    def _asked(self, loras: tuple[Lora, ...], embeddings: tuple[str, ...]) -> Asked:
        files = [self.file(path) for path in (*(each.path for each in loras), *embeddings)]
        return loras, embeddings, tuple(map(file_state, files))

    def loras(self, request: Request) -> tuple[Lora, ...]:
        """All that a request uses: the model's few-step one, its own, and those that its prompt names."""
        fast = (Lora(str(fast_lora(self.model))),) if request.fast else ()
        return (*fast, *request.loras, *self.named(request))

    def named(self, request: Request) -> tuple[Lora, ...]:
        """The `<lora:name:0.8>` tags of the prompt, looked up in the folders; UsageError for other kinds of tags."""
        tags = read(request.prompt, str(request.weighting)).adapters
        for tag in tags:
            if tag.kind not in ("lora", "lyco"):
                raise UsageError(f"no <{tag.kind}:…> here; a prompt may name <lora:name:weight>")
            if not self.folders:
                raise UsageError(f"<lora:{tag.name}> needs a folder to look in; give it with --loras FOLDER")
        return tuple(Lora(str(find_adapter(tag.name, self.folders)), tag.unet, tag.text) for tag in tags)

    def file(self, path: str) -> Path:
        """Where an adapter is: at its path, pulled under that name, or in the folders under the name of its file.

        Raises UsageError naming it when it is nowhere.
        """
        wanted = Path(path)
        if not wanted.expanduser().exists() and wanted.name in (known := names_in(self.folders)):
            return known[wanted.name]
        file = found(path)
        if not file.exists():
            raise UsageError(f"the adapter {path} isn't there; give its file, or the folder it is in with --loras")
        return file

    def hashes(self, request: Request) -> tuple[AdapterHash, ...]:
        """The hashes of all adapters that a request uses, each under its file's name. UsageError for a missing one."""
        used = [("lora", self.file(each.path)) for each in self.loras(request)]
        used += [("embedding", self.file(each)) for each in request.embeddings]
        used += [("control", file) for each in request.controls if (file := _if_there(each.model))]
        tiny = tiny_weights(self.model) if request.fast else None
        vae = self.vae or (tiny and (TINY, tiny))
        return (*(_hash(kind, path) for kind, path in used), *([_hash("vae", vae[1], vae[0])] if vae else []))

    def _made(self, loras: tuple[Lora, ...], embeddings: tuple[str, ...]) -> Adapted:
        uses = [Use(read_adapter(self.file(each.path)), each.weight, each.text) for each in loras]
        return Adapted(self.modules, uses, [read_embedding(self.file(each)) for each in embeddings])


def _if_there(model: str) -> Path | None:
    """Where a ControlNet is, whose name need not be one that is here: a picture of elsewhere may call it."""
    with suppress(FromnoiseError):
        file = found(model)
        return file if file.exists() else None
    return None


def _hash(kind: str, path: Path, name: str | None = None) -> AdapterHash:
    try:
        return AdapterHash(kind, name or path.stem, adapter_hash(path, tensors_only=kind == "lora"))
    except OSError as error:
        raise UsageError(f"the adapter {path} can't be read: {error.strerror or error}") from error
