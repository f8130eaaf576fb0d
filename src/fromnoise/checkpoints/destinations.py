"""Where a model may be written: what must be apart from it, and what it may replace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fromnoise.checkpoints.checkpoint import CLASSES, PARTS, class_of
from fromnoise.checkpoints.companions import COMPANIONS
from fromnoise.checkpoints.folder import read_json
from fromnoise.checkpoints.model_folder import EXTRAS, MODEL_INDEX
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import TINY, require_writable

SINGLE = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")

CONFIG = "config.json"

OWN_FILES = frozenset({MODEL_INDEX, EXTRAS, ".gitattributes", *COMPANIONS})
"""What stands beside the parts of a model's folder; all of it is replaced with the model."""

OTHER_FOLDERS = frozenset(
    {"scheduler", "tokenizer", "tokenizer_2", "feature_extractor", "safety_checker", "image_encoder", TINY}
)

PART_ENDINGS = (".json", SINGLE, ".bin")
PART_FILES = frozenset({"merges.txt"})
"""What the files of a part are called, those of a tokenizer too."""


def is_single(destination: Path) -> bool:
    """True when a model is written there as one file, False for a folder."""
    return destination.suffix.lower() == SINGLE


def require_apart(source: Path, destination: Path) -> None:
    """UsageError when writing to `destination` would take `source` away, which is read meanwhile."""
    one, other = source.resolve(), destination.resolve()
    if other in one.parents:
        raise UsageError(f"{destination} holds {source} itself; choose another name")
    if one in other.parents and other.is_dir():
        raise UsageError(f"{destination} is a part of {source}; choose another name")


def require_other(source: Path, destination: Path) -> None:
    """UsageError when `destination` is `source` or would take it away: for what is made of several sources."""
    require_apart(source, destination)
    if destination.exists() and source.exists() and destination.samefile(source):
        raise UsageError(f"{destination} is what is read; choose another name for what is written")


def require_free(destination: Path, overwrite: bool) -> None:
    """UsageError unless a model can be written there: where nothing is, or a model that may be replaced."""
    if destination.suffix.lower() in PICKLES:
        raise UsageError(f"{destination}: pickles are read, never written; choose a name that ends in {SINGLE}")
    if not destination.exists():
        if destination.is_symlink():
            raise UsageError(f"{destination} is a link that leads nowhere; choose another name")
        return
    if not overwrite:
        raise UsageError(f"{destination} exists; choose another name or allow overwriting")
    if destination.is_dir() == is_single(destination):
        raise UsageError(f"{destination} exists and is of the other kind (file or folder); choose another name")
    if destination.is_dir():
        _require_replaceable(destination)


def require_ready(destination: Path, overwrite: bool, *sources: Path) -> None:
    """UsageError unless all that is known before says that a model can be written there: for long work."""
    for source in sources:
        require_apart(source, destination)
    require_free(destination, overwrite)
    require_writable(destination)


def _require_replaceable(folder: Path) -> None:
    """UsageError unless a folder is empty or holds a model and nothing else, as all that is in it goes."""
    here = Path.cwd()
    if folder.resolve() in (here, *here.parents):
        raise UsageError(f"{folder} holds the folder that you are in; choose another name")
    if not any(folder.iterdir()):
        return
    if not _is_model(folder):
        raise UsageError(f"{folder} is a folder of something else; choose another name")
    if strange := next(_strangers(folder), None):
        raise UsageError(f"{folder} is a folder of something else, too ({strange.name}); choose another name")


def _is_model(folder: Path) -> bool:
    return (folder / MODEL_INDEX).is_file() or _is_part(folder)


def _is_part(folder: Path) -> bool:
    """True for the folder of one part, whose config says of what kind it is."""
    try:
        return class_of(read_json(folder / CONFIG)) in CLASSES
    except (FromnoiseError, TypeError, LookupError):
        return False


def _strangers(folder: Path) -> Iterator[Path]:
    """What is no entry of a model's folder."""
    lone = _is_part(folder)
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.is_symlink() or path.name not in PARTS | OTHER_FOLDERS:
                yield path
            else:
                yield from (each for each in sorted(path.iterdir()) if each.is_dir() or not _is_of_part(each))
        elif path.name not in OWN_FILES and not (lone and _is_of_part(path)):
            yield path


def _is_of_part(path: Path) -> bool:
    return path.suffix in PART_ENDINGS or path.name in PART_FILES
