"""What is on this machine: the embedded model, what was pulled, and the adapters in a folder."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

from fromnoise.hub.hashing import Told, chunks, digest, remembered_digest
from fromnoise.hub.pulled import WEIGHTS, Pulled, all_pulled, recorded_hash, unfinished
from fromnoise.hub.pushing import CARD, card_licence
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL

KOHYA = "sshs_model_hash"
"""Where kohya's trainer writes the SHA-256 of all that follows a file's header."""

Hashes = Mapping[str, str]
"""What each file's hash should be, in hex digits, by its name."""


@dataclass(frozen=True)
class Model:
    """One thing that is here. `hash` is one SHA-256 over the hashes of its weights, or that of its only file.

    `files` are its files by name, and `recorded` the hashes that were promised for some or all of them. `state` is ""
    when all is well.
    """

    name: str
    kind: str
    source: str
    path: Path
    licence: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    recorded: Hashes = field(default_factory=dict)
    state: str = ""
    size: int = 0

    def hash(self, told: Told = lambda count: None) -> str | None:
        """The recorded SHA-256 of the weights where there is one, else computed; None without weights."""
        weights = sorted(name for name in self.files if Path(name).suffix in WEIGHTS)
        hashes = [self._sha256(name, told) for name in weights]
        joined = hashlib.sha256("".join(hashes).encode()).hexdigest()
        return joined if len(hashes) > 1 else hashes[0] if hashes else None

    def _sha256(self, name: str, told: Told) -> str:
        recorded = self.recorded.get(name, "")
        return recorded if len(recorded) == 64 else remembered_digest(self.files[name], told=told)


def models(loras: Path | None = None) -> list[Model]:
    """The embedded model, every Stable Diffusion and adapter in the hub client's cache, the adapters in `loras`.

    Raises UsageError when `loras` is no folder.
    """
    if loras is not None and not loras.is_dir():
        raise UsageError(f"there is no folder at {loras}")
    partial = [Model(name, "", "hub", Path(), state="not all here; pull again", size=n) for name, n in unfinished()]
    return [_embedded(), *map(_from_hub, filter(_is_ours, all_pulled())), *partial, *_adapters(loras)]


def damage(model: Model, told: Told = lambda count: None) -> list[str]:
    """The names of files that are missing, or whose bytes are no longer those that were promised."""
    return [
        name
        for name, expected in model.recorded.items()
        if not model.files[name].exists() or _digest(model.files[name], expected, told) != expected
    ]


def _digest(path: Path, expected: str, told: Told) -> str:
    if expected.startswith(KOHYA):
        return f"{KOHYA} {_body_digest(path, told)}"
    return digest(path, like=expected, told=told)


def _body_digest(path: Path, told: Told) -> str:
    """The SHA-256 of a safetensors file's tensors: all that follows its header."""
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    state = hashlib.sha256()
    for chunk in chunks(path, start):
        state.update(chunk)
        told(len(chunk))
    return state.hexdigest()


def _embedded() -> Model:
    paths = {path.relative_to(EMBEDDED_MODEL).as_posix(): path for path in _plain(EMBEDDED_MODEL)}
    try:
        recorded, release = _installed(paths), version("fromnoise")
    except PackageNotFoundError:
        recorded, release = {}, ""
    licence = card_licence(paths[CARD]) if CARD in paths else None
    source = f"fromnoise {release}".strip()
    return Model("fromnoise", "model", source, EMBEDDED_MODEL, licence, paths, recorded, size=_size(paths))


def _installed(paths: Mapping[str, Path]) -> dict[str, str]:
    """The hashes that the installer noted for the model's files; none for a tree that is not installed."""
    noted = {Path(str(each.locate())): each.hash for each in files("fromnoise") or () if each.hash}
    found = {name: noted[path] for name, path in paths.items() if path in noted}
    return {
        name: base64.urlsafe_b64decode(f"{each.value}=").hex() for name, each in found.items() if each.mode == "sha256"
    }


def _is_ours(here: Pulled) -> bool:
    """True for what fromnoise can load by its files: the cache may hold language models as well."""
    names = set(here.files)
    if {"model_index.json", "adapter_config.json"} & names:
        return True
    if "config.json" in names:
        return any(name.startswith("diffusion_pytorch_model") for name in names)
    return any("/" not in name and Path(name).suffix in WEIGHTS for name in names)


def _from_hub(here: Pulled) -> Model:
    paths = here.files
    recorded = {name: hash_ for name, path in paths.items() if (hash_ := recorded_hash(path))}
    kind = next((kind for kind, applies in KINDS.items() if applies(set(paths))), "file")
    missing = [name for name, path in paths.items() if not path.exists()]
    return Model(
        name=here.repository,
        kind=kind,
        source=f"hub, {', '.join(here.revisions) or 'no branch'} at {here.commit[:10]}",
        path=here.model or here.folder,
        licence=card_licence(paths[CARD]) if CARD in paths and paths[CARD].exists() else None,
        files=paths,
        recorded=recorded,
        state=f"{len(missing)} files missing; pull again" if missing else "",
        size=_size(paths),
    )


KINDS: Mapping[str, Callable[[set[str]], bool]] = {
    "model": lambda names: "model_index.json" in names,
    "adapter": lambda names: any(Path(name).stem.startswith(("adapter", "pytorch_lora", "learned")) for name in names),
    "part": lambda names: "config.json" in names,
}
"""What a pulled repository is, by the names of its files."""


def _adapters(folder: Path | None) -> Iterator[Model]:
    """The adapter files of a folder, each by itself."""
    for path in _plain(folder) if folder else ():
        if path.suffix in WEIGHTS:
            metadata = _metadata(path)
            noted = {path.name: f"{KOHYA} {metadata[KOHYA]}"} if metadata.get(KOHYA) else {}
            licence = metadata.get("modelspec.license")
            paths = {path.name: path}
            yield Model(path.stem, "adapter", "folder", path, licence, paths, noted, size=_size(paths))


def _metadata(path: Path) -> Mapping[str, str]:
    """What a safetensors file says of itself; nothing for other formats."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _plain(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def _size(paths: Mapping[str, Path]) -> int:
    return sum(path.stat().st_size for path in paths.values() if path.exists())
