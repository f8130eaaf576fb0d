"""Fetch a pinned npm package through the registry's ordinary client, and believe only the hash."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fromnoise.data.sources import Package
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import atomic_write

__all__ = ["CLIENT", "UnreachableError", "cached", "fetch", "members"]

CLIENT = ("npm", "pack", "--loglevel=error", "--fetch-retries=1", "{name}@{version}")
"""How npm is asked for one archive, which it leaves in the working folder."""

_PATIENCE_S = 180

_NO_NETWORK = re.compile(r"\b(ECONN[A-Z]+|ENOTFOUND|EAI_[A-Z]+|E(NET|HOST)UNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT)\b")


class UnreachableError(FromnoiseError):
    """The registry doesn't answer, whatever it is asked for: there is no use in asking for more."""


def fetch(package: Package, cache: Path) -> Path:
    """The package's archive in `cache`, downloaded only when it is not there yet.

    Raises FromnoiseError when npm fails or the archive's hash is not the pinned one, UnreachableError when npm is
    missing or gets no answer.
    """
    found = cached(package, cache)
    if found is None:
        found = cache / package.archive
        note(f"fetching {package.name} {package.version}")
        _download(package, found)
    return found


def cached(package: Package, cache: Path) -> Path | None:
    """The package's archive in `cache` if it is there and whole."""
    path = cache / package.archive
    return path if path.exists() and _integrity(path, package) == package.integrity else None


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
        found = next((each for each in Path(folder).iterdir() if each.is_file()), None)
        if found is None or _integrity(found, package) != package.integrity:
            raise FromnoiseError(f"{package.name} {package.version}: not the file that was pinned; it was not used")
        with atomic_write(path, overwrite=True) as temporary:
            shutil.copyfile(found, temporary)


def _run_client(package: Package, folder: str) -> None:
    command = [part.format(name=package.name, version=package.version) for part in CLIENT]
    if shutil.which(command[0]) is None:
        raise UnreachableError(f"{command[0]} is not installed; install it and build again")
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"{command[0]} gave no answer in {_PATIENCE_S} s; build again with a network") from None
    except subprocess.CalledProcessError as error:
        if found := _NO_NETWORK.search(error.stderr):
            raise UnreachableError(f"{command[0]} can't reach its registry ({found[0]}); build again online") from None
        raise FromnoiseError(f"{package.name}: {command[0]} failed ({_reason(error.stderr)}); try again") from None


def _reason(said: str) -> str:
    """The first line of npm's complaint that is meant for people."""
    lines = (line.removeprefix("npm error ").strip() for line in said.splitlines())
    return next(
        (line for line in lines if line and not line.startswith(("code ", "syscall ", "errno "))), "it said nothing"
    )


def _integrity(path: Path, package: Package) -> str:
    """The file's hash in the notation, and by the algorithm, of the package's own."""
    algorithm = package.integrity.partition("-")[0]
    digest = hashlib.new(algorithm, path.read_bytes()).digest()
    return f"{algorithm}-{base64.b64encode(digest).decode()}"
