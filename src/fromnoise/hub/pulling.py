"""Fetching what a model needs into the hub client's cache: resumed where it stopped, and checked by hash.

The client itself throws half a file away when it is stopped; here it stays as `blobs/HASH.incomplete`, and the next
pull asks for the rest (RFC 9110, section 14). A blob gets its name only when its hash is right, and a snapshot appears
only when all of its blobs are there, so what is found under a model's name is always whole.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fromnoise.hub.choosing import chosen, matching
from fromnoise.hub.client import Listed, Listing, UnreachableError, clear, endpoint, listing
from fromnoise.hub.hashing import digest, is_whole
from fromnoise.hub.names import Name
from fromnoise.hub.pulled import PARTIAL, Pulled, pulled, repository_folder
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import atomic_write

ATTEMPTS = 5
"""How often in a row a file may bring nothing before the pull gives up."""

PAUSE_S = 1.0

Show = Callable[[int, int], None]
"""Told how many bytes are dealt with, and of how many."""


@dataclass(frozen=True)
class Fetched:
    """What a pull came to. `fetched` counts bytes that came over the network; `licence` is None where none is stated.

    `checked` is False when the hub could not be asked and what was here already had to do.
    """

    here: Pulled
    size: int
    fetched: int = 0
    licence: str | None = None
    checked: bool = True


@dataclass
class _Tally:
    """Bytes dealt with, told on as they come."""

    total: int
    show: Show
    done: int = 0
    fetched: int = 0

    def checked(self, count: int) -> None:
        self.done += count
        self.show(min(self.done, self.total), self.total)

    def came(self, count: int) -> None:
        self.fetched += count
        self.checked(count)


def pull(
    name: Name,
    *,
    patterns: Sequence[str] = (),
    variant: str | None = None,
    show: Show = lambda done, total: None,
) -> Fetched:
    """Fetch what `name` needs, or the files that fit `patterns`; what is here already is checked, not fetched again.

    Without a network, what was pulled before is good enough. `variant` is fp16, say. Stopped at any moment, the next
    pull goes on where this one was. No file is opened but to be hashed, and no code in one is run.
    Raises UnreachableError when the hub can't be asked and nothing is here, UsageError for a name, revision or pattern
    that the hub does not have, FromnoiseError for a gated repository, a full disk or bytes other than promised.
    """
    patterns = [*patterns, *([name.file] if name.file else [])]
    try:
        listed = listing(name.repository, name.revision)
    except UnreachableError as error:
        return _already(name, patterns, variant, error)
    wanted = _wanted(listed, patterns, variant)
    tally = _Tally(wanted.size, show)
    home = repository_folder(name.repository)
    _require_room(home, wanted)
    for file in wanted.files.values():
        _bring(wanted, file, home, tally)
    here = _named(home, wanted, name.revision)
    return Fetched(here, wanted.size, tally.fetched, listed.licence)


def _already(name: Name, patterns: Sequence[str], variant: str | None, error: UnreachableError) -> Fetched:
    """What is here without asking the hub; the error, with what to do, when it is not enough."""
    here = pulled(name)
    if here is None:
        raise UnreachableError(f"{name} is not here yet, and {error}") from None
    try:
        names = matching(here.files, patterns) if patterns else chosen(here.files, variant)
        if variant and not patterns and not any(f".{variant}." in each for each in names):
            raise UsageError(f"no {variant} weights")
    except UsageError as lacking:
        raise UnreachableError(f"not all of {name} is here yet ({lacking}), and {error}") from None
    return Fetched(here, sum(here.files[each].stat().st_size for each in names), checked=False)


def _wanted(listed: Listing, patterns: Sequence[str], variant: str | None) -> Listing:
    """The listing with only the files to fetch."""
    try:
        names = matching(listed.files, patterns) if patterns else chosen(listed.files, variant)
    except UsageError as error:
        raise UsageError(f"{listed.repository}: {error}") from None
    return Listing(listed.repository, listed.commit, {each: listed.files[each] for each in names}, listed.licence)


def _require_room(home: Path, wanted: Listing) -> None:
    home.mkdir(parents=True, exist_ok=True)
    blobs = home / "blobs"
    missing = sum(each.size for each in wanted.files.values() if not (blobs / each.hash).exists())
    if missing > (free := shutil.disk_usage(home).free):
        raise FromnoiseError(
            f"{missing / 1e9:.1f} GB to fetch, {free / 1e9:.1f} GB free at {home}; make room or set HF_HOME"
        )


def _bring(wanted: Listing, file: Listed, home: Path, tally: _Tally) -> None:
    """The blob of a file, whole and under its hash."""
    blob = home / "blobs" / file.hash
    pointer = home / "snapshots" / wanted.commit / file.name
    started = tally.done
    for place in (blob, pointer):
        if is_whole(place, file.size, file.hash, tally.checked):
            return
        tally.done = started
    with _locked(home, file.hash):
        blob.parent.mkdir(parents=True, exist_ok=True)
        part = blob.with_name(blob.name + PARTIAL)
        _complete(wanted, file, part, tally)
        if (came := digest(part, like=file.hash)) != file.hash:
            part.unlink()
            raise FromnoiseError(
                f"{file.name} of {wanted.repository} arrived damaged (its hash is {came[:10]}…, the hub says "
                f"{file.hash[:10]}…) and was thrown away; pull again"
            )
        part.replace(blob)
        pointer.unlink(missing_ok=True)


@contextmanager
def _locked(home: Path, blob: str) -> Iterator[None]:
    """Keep other pulls, and the hub's client, from the same blob."""
    from huggingface_hub.utils import WeakFileLock

    lock = home.parent / ".locks" / home.name / f"{blob}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        yield


def _complete(wanted: Listing, file: Listed, part: Path, tally: _Tally) -> None:
    """Add to `part` until it is as long as it should be, asking again when the line breaks."""
    part.touch()
    if part.stat().st_size > file.size:
        part.unlink()
        part.touch()
    tally.checked(part.stat().st_size)
    left = ATTEMPTS
    while (before := part.stat().st_size) < file.size:
        try:
            with clear(wanted.repository, wanted.commit):
                _append(wanted, file, part, tally)
        except UnreachableError:
            note(f"{file.name}: the line broke at {part.stat().st_size} of {file.size} bytes")
        left = ATTEMPTS if part.stat().st_size > before else left - 1
        if part.stat().st_size < file.size:
            _pause(left, file, part)


def _pause(left: int, file: Listed, part: Path) -> None:
    if left == 0:
        raise UnreachableError(
            f"{endpoint()} stopped sending {file.name} at {part.stat().st_size} of {file.size} bytes; "
            "they are kept, pull again to go on"
        )
    time.sleep(PAUSE_S)


def _append(wanted: Listing, file: Listed, part: Path, tally: _Tally) -> None:
    """Ask for what `part` lacks and write it as it comes; from the start where the server knows no ranges."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(wanted.repository, file.name, revision=wanted.commit, endpoint=constants.ENDPOINT)
    start = part.stat().st_size
    asked = {**build_hf_headers(library_name="fromnoise"), "Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    with get_session().stream("GET", url, headers=asked, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        goes_on = response.status_code == 206
        if not goes_on:
            tally.checked(-start)
        with part.open("ab" if goes_on else "wb") as sink:
            _pour(response, sink, file.size - (start if goes_on else 0), tally)


def _pour(response: Any, sink: Any, room: int, tally: _Tally) -> None:
    """Write the body, never more than there is room for: a hash would find it, a full disk would come first."""
    for chunk in response.iter_bytes():
        tally.came(sink.write(chunk[:room]))
        room -= len(chunk)
        if room <= 0:
            return


def _named(home: Path, wanted: Listing, revision: str) -> Pulled:
    """Give the blobs their names in a snapshot, and the revision its commit."""
    folder = home / "snapshots" / wanted.commit
    for file in wanted.files.values():
        pointer = folder / file.name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if not pointer.exists():
            pointer.unlink(missing_ok=True)
            _link(home / "blobs" / file.hash, pointer)
    if revision != wanted.commit:
        with atomic_write(home / "refs" / revision, overwrite=True) as temporary:
            temporary.write_text(wanted.commit)
    return Pulled(wanted.repository, wanted.commit, folder, (revision,))


def _link(blob: Path, pointer: Path) -> None:
    """A relative link as the client makes it; where links need a privilege (Windows), a second name or a copy."""
    symlink = partial(os.symlink, os.path.relpath(blob, pointer.parent))
    for attempt in (symlink, partial(os.link, blob), partial(shutil.copyfile, blob)):
        try:
            attempt(pointer)
            return
        except OSError as error:
            failure = error
    raise FromnoiseError(f"can't write {pointer}: {failure.strerror or failure}")
