"""Build a dataset folder: fetch, find, render, caption, split, write."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fromnoise.data.captions import Vocabulary, captions, fold_plural
from fromnoise.data.codepoints import slug
from fromnoise.data.concepts import Concept, Emojibase, cluster, read_emojibase
from fromnoise.data.drawings import Drawing, read_drawings
from fromnoise.data.fetching import fetch
from fromnoise.data.flips import may_flip
from fromnoise.data.likeness import drawing_groups, signature
from fromnoise.data.records import (
    FORMAT,
    MANIFEST,
    METADATA,
    PICTURES,
    WORDS,
    Manifest,
    Picture,
    SourceReport,
    to_lines,
)
from fromnoise.data.rendering import SIDE, encode, render
from fromnoise.data.sources import PICTURE_SETS, WORD_LISTS, Package, PictureSet
from fromnoise.data.splits import Held, held_out, judge_fold
from fromnoise.data.vocabulary import read_emojilib, vocabularies
from fromnoise.data.wordnet import WordNet, read_wordnet
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.log import warn
from fromnoise.runtime.paths import atomic_write, cache_dir

__all__ = ["FEWEST_STYLES", "Progress", "build_dataset", "reserved_words"]

FEWEST_STYLES = 4
"""A concept drawn in fewer styles is left out: a model could not tell what it is from how it is drawn."""

FEWEST_CAPTIONS = 8

Progress = Callable[[int, int], None]
"""Told how many pictures are rendered, and of how many."""


@dataclass(frozen=True)
class _Rendered:
    """A drawing's picture on disk, and what its neighbours are found by."""

    drawing: Drawing
    file_name: str
    sha256: str
    signature: np.ndarray

    @property
    def id(self) -> str:
        return self.file_name.removeprefix(f"{PICTURES}/").removesuffix(".png")


@dataclass(frozen=True)
class _Words:
    """The three word lists, read."""

    emojibase: Emojibase
    vocabulary: Mapping[str, Vocabulary]
    wordnet: WordNet


def build_dataset(
    folder: Path,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    picture_sets: Sequence[PictureSet] = PICTURE_SETS,
    workers: int = 2,
) -> Manifest:
    """Build the dataset in `folder` (made if need be; the same pictures give the same bytes) and return its manifest.

    Archives are kept in `cache` (the user's cache folder when None). A picture set that can't be fetched is
    skipped, and the manifest says why. Raises FromnoiseError when a word list or every picture set is missing.
    """
    cache = cache_dir() / "sources" if cache is None else cache
    words = _read_words(cache)
    drawings, skipped = _collect(picture_sets, cache, words.emojibase)
    rendered = _render_all(folder, _kept(drawings), words.emojibase.concepts, progress, workers)
    pictures = _describe(rendered, words, {each.style: each for each in picture_sets})
    _remove_strangers(folder, pictures)
    return _write(folder, pictures, words.wordnet, picture_sets, skipped)


def reserved_words() -> frozenset[str]:
    """The words that no caption may hold, because the held-out reworded prompts are made of them; singular."""
    text = files("fromnoise.data").joinpath("reserved_words.txt").read_text(encoding="utf-8")
    return frozenset(fold_plural(word) for word in text.split())


def _read_words(cache: Path) -> _Words:
    emojibase = read_emojibase(fetch(WORD_LISTS["emojibase"], cache))
    wordnet = read_wordnet(fetch(WORD_LISTS["wordnet"], cache))
    keywords = read_emojilib(fetch(WORD_LISTS["emojilib"], cache))
    return _Words(emojibase, vocabularies(list(emojibase.concepts.values()), keywords, wordnet), wordnet)


def _collect(
    picture_sets: Iterable[PictureSet], cache: Path, emojibase: Emojibase
) -> tuple[list[Drawing], dict[str, str]]:
    """The drawings of all sets that can be had, and by style why the others can't."""
    drawings: list[Drawing] = []
    skipped: dict[str, str] = {}
    for each in picture_sets:
        try:
            drawings += read_drawings(each, fetch(each.package, cache), emojibase)
        except FromnoiseError as error:
            warn(f"{each.style} is left out: {error}")
            skipped[each.style] = str(error)
    if not drawings:
        raise FromnoiseError(f"no picture set could be fetched; the first reason: {next(iter(skipped.values()))}")
    return drawings, skipped


def _kept(drawings: Iterable[Drawing]) -> list[Drawing]:
    """Drawings of the concepts that enough styles draw."""
    styles: defaultdict[str, set[str]] = defaultdict(set)
    drawings = list(drawings)
    for each in drawings:
        styles[each.concept].add(each.style)
    return [each for each in drawings if len(styles[each.concept]) >= FEWEST_STYLES]


def _render_all(
    folder: Path,
    drawings: Sequence[Drawing],
    concepts: Mapping[str, Concept],
    progress: Progress | None,
    workers: int,
) -> list[_Rendered]:
    """Render in parallel; the order, and so everything after, is that of the drawings."""
    done: list[_Rendered] = []
    names = _file_names(drawings, concepts)
    # Fresh processes: a fork of one that has threads (torch, a progress bar) may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for each in pool.map(_render_one, [folder] * len(drawings), drawings, names, chunksize=32):
            if each is not None:
                done.append(each)
            if progress:
                progress(len(done), len(drawings))
    return done


def _file_names(drawings: Iterable[Drawing], concepts: Mapping[str, Concept]) -> list[str]:
    """`pictures/<style>/<label>.png`; a set's further drawings of a concept are numbered from 2."""
    seen: Counter[str] = Counter()
    names = []
    for each in drawings:
        stem = f"{PICTURES}/{each.style}/{slug(concepts[each.concept].label)}"
        seen[stem] += 1
        names.append(f"{stem}.png" if seen[stem] == 1 else f"{stem}-{seen[stem]}.png")
    return names


def _render_one(folder: Path, drawing: Drawing, file_name: str) -> _Rendered | None:
    """Render and write one picture; None for a blank one."""
    picture = render(drawing)
    if picture.getextrema() == ((255, 255),) * 3:
        return None
    png = encode(picture)
    with atomic_write(folder / file_name, overwrite=True) as temporary:
        temporary.write_bytes(png)
    return _Rendered(drawing, file_name, hashlib.sha256(png).hexdigest(), signature(picture))


def _describe(rendered: Iterable[_Rendered], words: _Words, sets: Mapping[str, PictureSet]) -> list[Picture]:
    """The records of all pictures."""
    by_concept: defaultdict[str, list[_Rendered]] = defaultdict(list)
    for each in rendered:
        by_concept[each.drawing.concept].append(each)
    groups = {picture: group for some in by_concept.values() for picture, group in _groups_of(some, sets).items()}
    held = _held(by_concept, groups, words.emojibase.concepts)
    reserved = reserved_words()
    return [
        _picture(each, words, sets[each.drawing.style], groups[each.id], held, reserved)
        for some in by_concept.values()
        for each in some
    ]


def _groups_of(rendered: Iterable[_Rendered], sets: Mapping[str, PictureSet]) -> dict[str, str]:
    rendered = list(rendered)
    families = {each.id: sets[each.drawing.style].family for each in rendered}
    return drawing_groups(families, {each.id: each.signature for each in rendered})


def _held(
    by_concept: Mapping[str, Sequence[_Rendered]], groups: Mapping[str, str], concepts: Mapping[str, Concept]
) -> frozenset[Held]:
    """Held out are only concepts without near-identical siblings, whose drawings would give them away."""
    siblings = Counter(cluster(concepts[concept].label) for concept in by_concept)
    candidates = [concept for concept in by_concept if siblings[cluster(concepts[concept].label)] == 1]
    return held_out({concept: {groups[each.id] for each in some} for concept, some in by_concept.items()}, candidates)


def _picture(
    rendered: _Rendered,
    words: _Words,
    picture_set: PictureSet,
    group: str,
    held: frozenset[Held],
    reserved: frozenset[str],
) -> Picture:
    concept = words.emojibase.concepts[rendered.drawing.concept]
    said = captions(rendered.id, words.vocabulary[concept.code_points], picture_set, reserved)
    if len(said) < FEWEST_CAPTIONS:
        raise FromnoiseError(f"only {len(said)} captions for {rendered.id}; free some of its reserved words")
    return Picture(
        file_name=rendered.file_name,
        id=rendered.id,
        concept=concept.code_points,
        label=concept.label,
        group=concept.group,
        subgroup=concept.subgroup,
        cluster=cluster(concept.label),
        style=picture_set.style,
        family=picture_set.family,
        drawing_group=group,
        source=picture_set.package.name,
        author=picture_set.package.author,
        licence=picture_set.package.licence,
        sha256=rendered.sha256,
        split="held_out" if Held(concept.code_points, group) in held else "train",
        judge_fold=judge_fold(concept.code_points, group),
        flip=may_flip(concept),
        captions=said,
    )


def _remove_strangers(folder: Path, pictures: Iterable[Picture]) -> None:
    """Pictures of an earlier build that this one has no record of."""
    wanted = {folder / each.file_name for each in pictures}
    for path in (folder / PICTURES).rglob("*.png"):
        if path not in wanted:
            path.unlink()


def _write(
    folder: Path,
    pictures: Sequence[Picture],
    wordnet: WordNet,
    picture_sets: Iterable[PictureSet],
    skipped: Mapping[str, str],
) -> Manifest:
    """Write records and words, and the manifest last, so that a folder with a manifest is whole."""
    metadata = to_lines(pictures)
    styles = Counter(each.style for each in pictures)
    manifest = Manifest(
        format=FORMAT,
        side=SIDE,
        concepts=len({each.concept for each in pictures}),
        pictures=len(pictures),
        splits=dict(sorted(Counter(each.split for each in pictures).items())),
        judge_folds=dict(sorted(Counter(each.judge_fold for each in pictures).items())),
        styles=dict(sorted(styles.items())),
        sources=tuple(_reports(picture_sets, styles, skipped)),
        metadata_sha256=hashlib.sha256(metadata.encode()).hexdigest(),
    )
    for name, text in ((METADATA, metadata), (WORDS, _word_lines(wordnet)), (MANIFEST, manifest.to_json())):
        with atomic_write(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return manifest


def _reports(
    picture_sets: Iterable[PictureSet], styles: Mapping[str, int], skipped: Mapping[str, str]
) -> Iterator[SourceReport]:
    for each in picture_sets:
        yield SourceReport(
            **_identity(each.package),
            attribution=each.attribution,
            style=each.style,
            pictures=styles.get(each.style, 0),
            skipped=skipped.get(each.style, ""),
        )
    yield from (SourceReport(**_identity(each)) for each in WORD_LISTS.values())


def _identity(package: Package) -> dict[str, str]:
    return {name: value for name, value in asdict(package).items() if name != "client"}


def _word_lines(wordnet: WordNet) -> str:
    """WordNet's nouns as JSON lines: lexname, lemmas and gloss, to learn words from that no caption holds."""
    return "".join(
        json.dumps({"lexname": each.lexname, "lemmas": each.lemmas, "gloss": each.gloss}, ensure_ascii=False) + "\n"
        for each in wordnet
    )
