"""Publishing a folder or a file: what goes along, the card it gets, and the check that it arrived."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fromnoise.hub.cards import Facts, card, facts_of
from fromnoise.hub.client import LOGIN, api, clear, licence_text, listing
from fromnoise.hub.contents import CARD, RECIPE, contents, is_run, left_out, result, story
from fromnoise.hub.hashing import digest
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import note

PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
"""Endings of formats that can carry code, or are read by tools that run it."""

NO_LICENCE = "say under which licence it is published: --licence apache-2.0, say, or openrail for most of SD's heirs"
SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")
TEXTS = (".json", ".jsonl", ".toml", ".yaml", ".yml", ".md", ".txt", ".csv", ".log", ".py", ".ini", ".cfg", ".env")


@dataclass(frozen=True)
class Plan:
    """What a push would publish. `card` is the README.md to write first; None when there is one already."""

    repository: str
    source: Path
    files: Mapping[str, Path]
    licence: str
    card: str | None = None

    @property
    def size(self) -> int:
        """Bytes in all, the card left out."""
        return sum(path.stat().st_size for path in self.files.values())


def plan(
    source: Path, repository: str, licence: str | None = None, *, data: str | None = None, run: Path | None = None
) -> Plan:
    """What publishing a folder, or a lone adapter, comes to; nothing is written or sent.

    `data` is what the card says it was trained on. `run` is the training run that it comes from, whose recipe, log and
    sample pictures go along; a run's own folder needs no such word, and gives its result.

    Raises UsageError when there is nothing there, a pickle is among it, a text in it holds a token of the hub, or no
    licence is known (the card's head and the file's metadata are asked first); FromnoiseError for a damaged file and
    for what is no model, adapter or embedding.
    """
    files = {**(story(run) if run else {}), **contents(source)}
    _require_safe(files)
    facts = facts_of(result(source) if is_run(source) else source, files, data, _recipe_above(source))
    known = licence or stated_licence(source)
    if known is None:
        raise UsageError(NO_LICENCE)
    _tell(source, files, facts, data)
    return Plan(repository, source, files, known, _card(files, repository, known, facts))


def _recipe_above(source: Path) -> Path | None:
    """The recipe of the run in whose folder a result lies by itself."""
    above = source.absolute().parent
    return above / RECIPE if is_run(above) else None


def _tell(source: Path, files: dict[str, Path], facts: Facts, data: str | None) -> None:
    """What a person should know before it is published: what stays here, and what the card lacks."""
    if left := left_out(source, files):
        note(f"not published: {', '.join(left)}; of a run only its result, recipe, log and sample pictures are")
    if CARD not in files and not facts.data:
        note("the files don't tell what it was trained on; --data WORDS says it on the card")
    if data and CARD in files and data not in files[CARD].read_text(encoding="utf-8", errors="replace"):
        note(f"{CARD} is there already; write there what --data says")


def push(prepared: Plan, *, private: bool = False) -> str:
    """Publish it in one commit and return its address; what the hub has already is not sent again.

    Writes the card beside the files first when there was none, then compares what arrived, hash by hash.
    Raises UsageError when nobody is logged in, FromnoiseError when the hub refuses or something arrived otherwise.
    """
    from huggingface_hub import CommitOperationAdd, get_token

    if get_token() is None:
        raise UsageError(f"publishing needs an account: {LOGIN}")
    hub, repository = api(), prepared.repository
    with clear(repository):
        address = str(hub.create_repo(repository, private=private, exist_ok=True))
    files = {**prepared.files, **_written_card(prepared)}
    with clear(repository):
        additions = [CommitOperationAdd(name, path) for name, path in files.items()]
        try:
            commit = hub.create_commit(repository, additions, commit_message="Publish with fromnoise")
        except ValueError as error:
            raise FromnoiseError(f"{repository} was refused: {' '.join(str(error).split())}") from None
    _require_arrival(repository, commit.oid, files)
    return address


def _require_safe(files: Mapping[str, Path]) -> None:
    """No pickles, by name or by nature; no damaged weights; no token of the hub in a text."""
    from fromnoise.checkpoints.tensor_file import read_header

    for name, path in files.items():
        if path.suffix.lower() in PICKLED:
            raise UsageError(
                f"{name} may carry code (it is a pickle, or like one), so it is not published; `fromnoise convert` "
                "makes safetensors of a checkpoint, anything else has to go elsewhere first"
            )
        if path.suffix == ".safetensors":
            read_header(path)
        if path.suffix.lower() in TEXTS and SECRET.search(path.read_bytes()):
            raise UsageError(f"{name} holds what looks like a token of the hub; take it out (and revoke it) first")


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
    text = files[CARD].read_text(encoding="utf-8")
    if text.startswith("---\n"):
        return f"---\nlicense: {licence}\n{text[4:]}"
    return f"---\nlicense: {licence}\n---\n\n{text}"


def _written_card(prepared: Plan) -> dict[str, Path | bytes]:
    """The card as something to send: written into a folder first, or beside no folder at all, as bytes."""
    if prepared.card is None:
        return {}
    if not prepared.source.is_dir():
        return {CARD: prepared.card.encode()}
    path = prepared.source / CARD
    path.write_text(prepared.card, encoding="utf-8")
    return {CARD: path}


def _require_arrival(repository: str, commit: str, files: Mapping[str, Path | bytes]) -> None:
    """FromnoiseError when the hub lists a file with another hash, or not at all."""
    there = listing(repository, commit).files
    for name, content in files.items():
        if name not in there:
            raise FromnoiseError(f"{repository} does not list {name} (does a .gitignore there name it?); push again")
        if isinstance(content, Path) and digest(content, like=there[name].hash) != there[name].hash:
            raise FromnoiseError(f"{name} arrived at {repository} with another hash than here; push again")
