"""Publishing a folder or a file: what goes along, the card it gets, and the check that it arrived."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from fromnoise.hub.cards import Facts, card, facts_of
from fromnoise.hub.client import LOGIN, Listing, api, clear, licence_text, listing, require_client
from fromnoise.hub.contents import CARD, RECIPE, contents, is_run, left_out, result, story
from fromnoise.hub.hashing import digest
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import note, warn

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
"""Endings of formats that can carry code, or are read by tools that run it."""

NO_LICENCE = "say under which licence it is published: --licence apache-2.0, say, or openrail for most of SD's heirs"
SECRET = re.compile(rb"(?:(?<!\w)|(?<=\\[nrt]))hf_[A-Za-z0-9]{30,}\b")
"""What looks like a token of the hub, also behind a line's end as JSON writes it."""

HEAD = re.compile(r"\s*---\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
"""The head of a card, which the hub reads."""

NAMED = re.compile(r"^fromnoise pull ([^\s@]+/[^\s@]+)$", re.MULTILINE)
"""The repository that a card of ours says how to pull."""


@dataclass(frozen=True)
class Plan:
    """What a push would publish. `card` is the README.md to publish besides; None when the files' own is fine."""

    repository: str
    source: Path
    files: Mapping[str, Path]
    licence: str
    card: str | None = None

    @property
    def size(self) -> int:
        """Bytes in all, the card left out."""
        return sum(path.stat().st_size for path in self.files.values())

    @property
    def is_generated(self) -> bool:
        """True when no word of the card is a person's."""
        return self.card is not None and CARD not in self.files


def plan(
    source: Path, repository: str, licence: str | None = None, *, data: str | None = None, run: Path | None = None
) -> Plan:
    """What publishing a folder, or a lone adapter, comes to; nothing is written or sent.

    `data` is what the card says it was trained on. `run` is the training run that it comes from, whose recipe, log and
    sample pictures go along; a run's own folder needs no such word, and gives its result.

    Raises UsageError when there is nothing there, a pickle is among it, a text in it holds a token of the hub, or no
    licence is known or another one (the card's head and the file's metadata are asked first); FromnoiseError for a
    damaged file and for what is no model, adapter or embedding.
    """
    files = {**(story(run) if run else {}), **contents(source)}
    require_client()
    _require_safe(files)
    facts = facts_of(result(source) if is_run(source) else source, files, data, _recipe_above(source))
    known = _licence(source, licence)
    _tell(source, files, facts, data, repository)
    text = _card(files, repository, known, facts)
    if text and SECRET.search(text.encode()):
        raise UsageError(f"the {CARD} to write would hold what looks like a token of the hub; see what it is made from")
    return Plan(repository, source, files, known, text)


def _licence(source: Path, given: str | None) -> str:
    """The licence given, or stated; UsageError where there is none, or where one contradicts the other."""
    stated = stated_licence(source)
    if given and stated and given.casefold() != stated.casefold():
        raise UsageError(
            f"{source} states the licence {stated}, not {given}; leave --licence out, or publish a folder whose {CARD} "
            f"states {given}"
        )
    if known := given or stated:
        return known
    raise UsageError(NO_LICENCE)


def _recipe_above(source: Path) -> Path | None:
    """The recipe of the run in whose folder a result lies by itself."""
    above = source.absolute().parent
    return above / RECIPE if is_run(above) else None


def _tell(source: Path, files: dict[str, Path], facts: Facts, data: str | None, repository: str) -> None:
    """What a person should know before it is published: what stays here, and what the card lacks."""
    if left := left_out(source, files):
        note(f"not published: {', '.join(left)}; of a run only its result, recipe, log and sample pictures are")
    if CARD not in files and not facts.data:
        note("the files don't tell what it was trained on; --data WORDS says it on the card")
    own = _own_card(files[CARD]) if CARD in files else ""
    if data and own and data not in own:
        note(f"{CARD} is there already; write there what --data says")
    if others := set(NAMED.findall(own)) - {repository}:
        warn(f"{CARD} tells to pull {', '.join(sorted(others))}, not {repository}; change it if that is a mistake")


def push(prepared: Plan, *, private: bool = False) -> str:
    """Publish it in one commit and return its address; what the hub has already is not sent again.

    Compares what arrived, hash by hash. A card of ours is then written into the folder, too; where the repository has
    a card already, that one stays. Raises UsageError when nobody is logged in, or the repository is public though
    `private`, or states another licence; FromnoiseError when the hub refuses or something arrived otherwise.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise UsageError(f"publishing needs an account: {LOGIN}")
    hub, repository = api(), prepared.repository
    with clear(repository):
        address = str(hub.create_repo(repository, private=private, exist_ok=True))
    there = listing(repository)
    if private and there.private is False:
        raise UsageError(f"{repository} is public already; make it private on its settings page first")
    text = _card_to_send(prepared, there)
    files = {**prepared.files, **({} if text is None else {CARD: text.encode()})}
    commit = _committed(hub, repository, files)
    if text is not None and prepared.source.is_dir():
        (prepared.source / CARD).write_text(text, encoding="utf-8")
    _require_arrival(repository, commit, files)
    return address


def _card_to_send(prepared: Plan, there: Listing) -> str | None:
    """The card, unless it is of our making and the repository has one, which somebody may have edited."""
    if not prepared.is_generated or CARD not in there.files:
        return prepared.card
    if there.licence and there.licence.casefold() != prepared.licence.casefold():
        raise UsageError(
            f"the {CARD} of {there.repository} states the licence {there.licence}, not {prepared.licence}; "
            "change it there first"
        )
    note(f"{there.repository} has a {CARD} already; it stays as it is, and no other is written")
    return None


def _committed(hub: HfApi, repository: str, files: Mapping[str, Path | bytes]) -> str:
    """Send it all, and return the commit."""
    from huggingface_hub import CommitOperationAdd

    with clear(repository):
        additions = [CommitOperationAdd(name, content) for name, content in files.items()]
        try:
            return hub.create_commit(repository, additions, commit_message="Publish with fromnoise").oid
        except ValueError as error:
            raise FromnoiseError(f"{repository} was refused: {' '.join(str(error).split())}") from None


def _require_safe(files: Mapping[str, Path]) -> None:
    """No pickles, by name or by nature; no damaged weights; no token of the hub in a text or in metadata."""
    from fromnoise.checkpoints.tensor_file import read_header

    for name, path in files.items():
        if path.suffix.lower() in PICKLED:
            raise UsageError(
                f"{name} may carry code (it is a pickle, or like one), so it is not published; `fromnoise convert` "
                "makes safetensors of a checkpoint, anything else has to go elsewhere first"
            )
        if path.suffix == ".safetensors":
            tells = SECRET.search(json.dumps(dict(read_header(path).metadata)).encode())
        else:
            tells = _holds_a_token(path)
        if tells:
            raise UsageError(f"{name} holds what looks like a token of the hub; take it out (and revoke it) first")


def _holds_a_token(path: Path) -> bool:
    """Whether a file of any kind has a token in plain sight; read as it lies, so that a large one takes no memory."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return SECRET.search(content) is not None


def stated_licence(source: Path) -> str | None:
    """The licence that a folder's card or a file's metadata states, if any does; nothing else is checked."""
    files = contents(source)
    return _stated(files) or next(filter(None, map(_in_metadata, files.values())), None)


def _stated(files: Mapping[str, Path]) -> str | None:
    """The licence in the head of the README.md, if there is one."""
    return card_licence(files[CARD]) if CARD in files else None


def _in_metadata(path: Path) -> str | None:
    """The licence that a safetensors file states in the ModelSpec standard's words."""
    from fromnoise.checkpoints.tensor_file import read_header

    return read_header(path).metadata.get("modelspec.license") if path.suffix == ".safetensors" else None


def card_licence(path: Path) -> str | None:
    """The licence that a model card states; None when it states none, or its head can't be read."""
    require_client()
    from huggingface_hub import metadata_load

    try:
        head = metadata_load(path) or {}
    except Exception:  # whatever the YAML reader finds in a stranger's file, it states no licence
        return None
    return licence_text(head.get("license"), head.get("license_name"))


def _card(files: Mapping[str, Path], repository: str, licence: str, facts: Facts) -> str | None:
    """The card to write: a new one, or the person's own with the licence in its head; None when it is fine as it is."""
    if CARD not in files:
        return card(repository, licence, facts)
    if _stated(files):
        return None
    return _with_licence(_own_card(files[CARD]), licence)


def _own_card(path: Path) -> str:
    """A person's own card; UsageError when it is no UTF-8, which the hub wants."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not in UTF-8; save it as that first") from None


def _with_licence(text: str, licence: str) -> str:
    """A card with the licence in its head, in place of a line that states none."""
    from huggingface_hub import ModelCardData

    said = ModelCardData(license=licence).to_yaml()
    if head := HEAD.match(text):
        kept = re.sub(r"^license:.*\n", "", head[1], flags=re.MULTILINE)
        return f"---\n{said}\n{kept}---{text[head.end() :]}"
    return f"---\n{said}\n---\n\n{text}"


def _require_arrival(repository: str, commit: str, files: Mapping[str, Path | bytes]) -> None:
    """FromnoiseError when the hub lists a file with another hash, or not at all."""
    there = listing(repository, commit).files
    for name, content in files.items():
        if name not in there:
            raise FromnoiseError(f"{repository} does not list {name} (does a .gitignore there name it?); push again")
        if isinstance(content, Path) and digest(content, like=there[name].hash) != there[name].hash:
            raise FromnoiseError(f"{name} arrived at {repository} with another hash than here; push again")
