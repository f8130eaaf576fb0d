"""Build a dataset folder: fetch, find, render, caption, split, write."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from fromnoise.data.captions import Vocabulary, captions, fold_plural
from fromnoise.data.codepoints import slug
from fromnoise.data.concepts import Concept, Emojibase, cluster, read_emojibase
from fromnoise.data.drawings import Drawing, read_drawings
from fromnoise.data.fetching import UnreachableError, cached, fetch
from fromnoise.data.flips import may_flip
from fromnoise.data.likeness import drawing_groups
from fromnoise.data.ownership import begin, end, require_ours, tidy
from fromnoise.data.records import (
    FORMAT,
    MANIFEST,
    METADATA,
    PICTURES,
    WORDS,
    Manifest,
    Picture,
    SourceReport,
    Word,
    to_lines,
)
from fromnoise.data.rendering import SIDE, Progress, Rendered, render_all, require_renderer
from fromnoise.data.sources import PICTURE_SETS, WORD_LISTS, PictureSet
from fromnoise.data.splits import Held, held_out, judge_fold, whole_group
from fromnoise.data.vocabulary import read_emojilib, vocabularies
from fromnoise.data.wordnet import WordNet, read_wordnet
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.log import warn
from fromnoise.runtime.paths import atomic_write, cache_dir, require_writable

__all__ = ["FEWEST_CAPTIONS", "FEWEST_STYLES", "build_dataset", "reserved_words"]

FEWEST_STYLES = 4
"""A concept drawn in fewer styles is left out: a model could not tell what it is from how it is drawn."""

FEWEST_CAPTIONS = 8
"""Every picture has at least so many wordings, or building stops."""


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
    """Build the dataset in `folder`, made if need be, and return its manifest; the same sources give the same bytes.

    Archives are kept in `cache` (the user's cache folder when None). `progress` is told how many pictures are
    rendered. A picture set that can't be fetched is skipped, and the manifest says why. A build that was broken off
    may be started again. With `workers` of more than one, pictures are rendered in fresh processes, so a script needs
    the usual `if __name__ == "__main__"`. Raises UsageError for a folder with files that are no dataset, or without a
    renderer, and FromnoiseError when a word list or every picture set is missing.
    """
    require_ours(folder)
    require_writable(folder / MANIFEST)
    require_renderer()
    cache = cache_dir() / "sources" if cache is None else cache
    words = _read_words(cache)
    drawings, skipped = _collect(picture_sets, cache, words.emojibase)
    drawings = _drawn_often(drawings)
    names = _file_names(drawings, words.emojibase.concepts)
    begin(folder, names)
    rendered = render_all(folder, drawings, names, progress, workers)
    pictures = _describe(rendered, words, {each.style: each for each in picture_sets})
    tidy(folder, [each.file_name for each in pictures])
    manifest = _write(folder, pictures, words.wordnet, picture_sets, skipped)
    end(folder)
    return manifest


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
    offline: UnreachableError | None = None
    for each in picture_sets:
        try:
            if offline and cached(each.package, cache) is None:
                raise offline
            drawings += read_drawings(each, fetch(each.package, cache), emojibase)
        except FromnoiseError as error:
            offline = error if isinstance(error, UnreachableError) else offline
            skipped[each.style] = str(error)
    if not drawings:
        raise FromnoiseError(f"no picture set could be fetched: {next(iter(skipped.values()), 'none was asked for')}")
    for reason in dict.fromkeys(skipped.values()):
        warn(f"left out: {', '.join(style for style, why in skipped.items() if why == reason)} ({reason})")
    return drawings, skipped


def _drawn_often(drawings: Sequence[Drawing]) -> list[Drawing]:
    """Drawings of the concepts that enough styles draw."""
    styles: defaultdict[str, set[str]] = defaultdict(set)
    for each in drawings:
        styles[each.concept].add(each.style)
    return [each for each in drawings if len(styles[each.concept]) >= FEWEST_STYLES]


def _file_names(drawings: Iterable[Drawing], concepts: Mapping[str, Concept]) -> list[str]:
    """`pictures/<style>/<label>.png`; a set's further drawings of a concept are numbered from 2."""
    seen: Counter[str] = Counter()
    names = []
    for each in drawings:
        stem = f"{PICTURES}/{each.style}/{slug(concepts[each.concept].label)}"
        seen[stem] += 1
        names.append(f"{stem}.png" if seen[stem] == 1 else f"{stem}-{seen[stem]}.png")
    return names


def _describe(rendered: Iterable[Rendered], words: _Words, sets: Mapping[str, PictureSet]) -> list[Picture]:
    """The records of all pictures, concept by concept."""
    by_concept: defaultdict[str, list[Rendered]] = defaultdict(list)
    for each in rendered:
        by_concept[each.drawing.concept].append(each)
    groups = {name: group for some in by_concept.values() for name, group in _groups(some, sets).items()}
    held = _held(by_concept, groups, words.emojibase.concepts)
    reserved = reserved_words()
    return [
        _picture(each, words, sets[each.drawing.style], groups[each.file_name], held, reserved)
        for some in by_concept.values()
        for each in some
    ]


def _groups(rendered: Iterable[Rendered], sets: Mapping[str, PictureSet]) -> dict[str, str]:
    """The drawing group of each of a concept's pictures, by file name."""
    pictures = {each.file_name: each for each in rendered}
    families = {name: sets[each.drawing.style].family for name, each in pictures.items()}
    groups = drawing_groups(families, {name: each.signature for name, each in pictures.items()})
    return {name: whole_group(pictures[name].drawing.concept, group) for name, group in groups.items()}


def _held(
    by_concept: Mapping[str, Sequence[Rendered]], groups: Mapping[str, str], concepts: Mapping[str, Concept]
) -> frozenset[Held]:
    """Held out are only concepts without near-identical siblings, whose drawings would give them away."""
    siblings = Counter(cluster(concepts[concept].label) for concept in by_concept)
    candidates = [concept for concept in by_concept if siblings[cluster(concepts[concept].label)] == 1]
    return held_out({key: {groups[each.file_name] for each in some} for key, some in by_concept.items()}, candidates)


def _picture(
    rendered: Rendered,
    words: _Words,
    picture_set: PictureSet,
    group: str,
    held: frozenset[Held],
    reserved: frozenset[str],
) -> Picture:
    concept = words.emojibase.concepts[rendered.drawing.concept]
    picture_id = rendered.file_name.removeprefix(f"{PICTURES}/").removesuffix(".png")
    said = captions(picture_id, words.vocabulary[concept.code_points], picture_set, reserved)
    if len(said) < FEWEST_CAPTIONS:
        raise FromnoiseError(f"only {len(said)} captions for {picture_id}; free some of its reserved words")
    return Picture(
        file_name=rendered.file_name,
        id=picture_id,
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


def _write(
    folder: Path,
    pictures: Sequence[Picture],
    wordnet: WordNet,
    picture_sets: Iterable[PictureSet],
    skipped: Mapping[str, str],
) -> Manifest:
    """Write records and words, and the manifest last, so that a folder with a manifest is whole."""
    metadata = to_lines(pictures)
    styles = _counts(each.style for each in pictures)
    manifest = Manifest(
        format=FORMAT,
        side=SIDE,
        concepts=len({each.concept for each in pictures}),
        pictures=len(pictures),
        splits=_counts(each.split for each in pictures),
        judge_folds=_counts(each.judge_fold for each in pictures),
        styles=styles,
        sources=tuple(_reports(picture_sets, styles, skipped)),
        metadata_sha256=hashlib.sha256(metadata.encode()).hexdigest(),
    )
    words = to_lines(Word(each.lexname, each.lemmas, each.gloss) for each in wordnet)
    for name, text in ((METADATA, metadata), (WORDS, words), (MANIFEST, manifest.to_json())):
        with atomic_write(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return manifest


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _reports(
    picture_sets: Iterable[PictureSet], styles: Mapping[str, int], skipped: Mapping[str, str]
) -> Iterator[SourceReport]:
    for each in picture_sets:
        yield SourceReport(
            **asdict(each.package),
            attribution=each.attribution,
            style=each.style,
            pictures=styles.get(each.style, 0),
            skipped=skipped.get(each.style, ""),
        )
    yield from (SourceReport(**asdict(each)) for each in WORD_LISTS.values())
