"""What was pulled: the hub client's own cache, so that other tools' downloads count here and ours count there.

Its layout (https://huggingface.co/docs/huggingface_hub/guides/manage-cache): `blobs/HASH` holds the bytes,
`snapshots/COMMIT/…` names them, `refs/REVISION` says which commit a branch was at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fromnoise.hub.client import require_client
from fromnoise.hub.names import MAIN, Name, parse_name
from fromnoise.runtime.errors import FromnoiseError, UsageError

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
FOLDER_SIGNS = ("model_index.json", "config.json", "adapter_config.json")
"""Files that make a whole folder the model; without one of them a lone file of weights is."""

PREFIX = "models--"
PARTIAL = ".incomplete"
"""What the name of a blob ends in that is not all here."""


@dataclass(frozen=True)
class Pulled:
    """One commit of a repository, in the cache."""

    repository: str
    commit: str
    folder: Path
    revisions: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, Path]:
        """Every file by its name in the repository."""
        found = (path for path in sorted(self.folder.rglob("*")) if not path.is_dir())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    @property
    def model(self) -> Path | None:
        """What to load: the folder, or the only file of weights in it; None when that can't be told."""
        if any((self.folder / sign).is_file() for sign in FOLDER_SIGNS):
            return self.folder
        weights = [path for path in self.files.values() if path.suffix in WEIGHTS]
        return weights[0] if len(weights) == 1 else None


def cache_root() -> Path:
    """Where the hub client keeps what it fetched (HF_HUB_CACHE, HF_HOME)."""
    require_client()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repository_folder(repository: str) -> Path:
    """Where in the cache a repository is kept."""
    return cache_root() / (PREFIX + repository.replace("/", "--"))


def pulled(name: Name) -> Pulled | None:
    """That revision of the repository, if it is here."""
    home = repository_folder(name.repository)
    commit = _commit(home / "refs" / name.revision) or name.revision
    folder = home / "snapshots" / commit
    return Pulled(name.repository, commit, folder, _revisions(home, commit)) if folder.is_dir() else None


def all_pulled() -> Iterator[Pulled]:
    """Every commit of every model in the cache, whatever tool fetched it."""
    for home in sorted(cache_root().glob(f"{PREFIX}*--*")):
        repository = home.name.removeprefix(PREFIX).replace("--", "/", 1)
        for folder in sorted((home / "snapshots").glob("*")):
            yield Pulled(repository, folder.name, folder, _revisions(home, folder.name))


def unfinished() -> Iterator[tuple[str, int]]:
    """Repositories of which a file is only partly here, with how many bytes of such files are."""
    for home in sorted(cache_root().glob(f"{PREFIX}*--*")):
        parts = [path.stat().st_size for path in (home / "blobs").glob(f"*{PARTIAL}")]
        if parts:
            yield home.name.removeprefix(PREFIX).replace("--", "/", 1), sum(parts)


def recorded_hash(path: Path) -> str | None:
    """The hash that the cache keeps a file under: its blob's name, SHA-256 or git's SHA-1; None if there is none."""
    if path.is_symlink():
        return Path(os.readlink(path)).name
    home = next((each.parent for each in path.parents if each.name == "snapshots"), None)
    blobs = (home / "blobs").iterdir() if home else ()
    return next((blob.name for blob in blobs if path.exists() and blob.samefile(path)), None)


def found(path: str | Path) -> Path:
    """`path` itself where something is, else the model or adapter that was pulled under that name.

    Nothing is ever downloaded here. Raises UsageError naming the command that would, when there is neither.
    """
    local = Path(path).expanduser()
    name = parse_name(str(path).replace(os.sep, "/"))
    if local.exists() or name is None:
        return local
    here = pulled(name)
    if here is None:
        raise UsageError(f"there is no checkpoint at {path}, and none was pulled; `fromnoise pull {name}` fetches it")
    return _file_in(here, name) if name.file else _model_in(here, name)


def name_of(path: Path) -> str | None:
    """The `owner/name` of what was pulled to `path`; None for anything else."""
    home = next((each.name for each in path.parents if each.name.startswith(PREFIX)), None)
    return home.removeprefix(PREFIX).replace("--", "/", 1) if home else None


def _file_in(here: Pulled, name: Name) -> Path:
    file = here.folder / str(name.file)
    if not file.exists():
        raise UsageError(f"{name.file} of {here.repository} was not pulled; `fromnoise pull {name}` fetches it")
    return file


def _model_in(here: Pulled, name: Name) -> Path:
    if here.model is not None:
        return here.model
    weights = [file for file in here.files if Path(file).suffix in WEIGHTS]
    if not weights:
        raise FromnoiseError(f"no weights of {name} were pulled; `fromnoise pull {name}` fetches them")
    raise UsageError(f"{name} holds several files; name one: {', '.join(f'{name}/{each}' for each in weights[:5])}")


def _commit(reference: Path) -> str | None:
    """The commit that a branch or tag was at; None when the cache does not say so, or not legibly."""
    try:
        return reference.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def _revisions(home: Path, commit: str) -> tuple[str, ...]:
    """The branches and tags that were at a commit when they were fetched, the main one first."""
    refs = home / "refs"
    named = [path for path in refs.rglob("*") if _commit(path) == commit]
    return tuple(sorted((path.relative_to(refs).as_posix() for path in named), key=lambda each: (each != MAIN, each)))
