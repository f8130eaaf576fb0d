"""Which files of a repository a Stable Diffusion needs: one set of weights a part, configs, vocabularies, the card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import FEW_STEPS, TINY

PARTS = ("unet", "vae", TINY, "text_encoder", "text_encoder_2", "controlnet")
BESIDE = ("tokenizer", "tokenizer_2", "scheduler")
"""Folders without weights that drawing reads, whole."""

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
VARIANTS = ("", "fp16", "bf16", "fp32", "ema", "non_ema")
"""Which weights count first where several lie in a part's folder; loading looks in the same order."""

ENDINGS = (".safetensors", ".bin")

INDEX = "model_index.json"
ADAPTERS = (
    ("adapter_model.safetensors", "adapter_config.json"),
    ("pytorch_lora_weights.safetensors",),
    ("learned_embeds.safetensors",),
    ("learned_embeds.bin",),
    ("pytorch_lora_weights.bin",),
)
"""Names that other tools publish adapters under, with what belongs to each; the first that is there is taken."""

PAPERS = ("README*", "LICENSE*", "LICENCE*", "NOTICE*", "concepts.*")
SINGLE = (".safetensors", ".ckpt", ".pt")
SHOWN = 8


def chosen(files: Iterable[str], variant: str | None = None) -> list[str]:
    """The names that are needed of those that a repository has, in its order; `variant` is fp16, say.

    A diffusers folder gives its parts, a lone part itself, an adapter its file, anything else its only file of weights.
    Raises UsageError when there is nothing to choose, or too much.
    """
    files = sorted(files)
    picked = _folder(files, variant) if INDEX in files else _root(files, variant)
    papers = [file for file in files if "/" not in file and any(fnmatchcase(file, each) for each in PAPERS)]
    return list(dict.fromkeys([*picked, *papers]))


def matching(files: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that fit one of the patterns, and the card; UsageError when a pattern fits none."""
    files = sorted(files)
    for pattern in patterns:
        if not any(fnmatchcase(file, pattern) for file in files):
            raise UsageError(f"no file is called {pattern}; there are {_some(files)}")
    wanted = (file for file in files if any(fnmatchcase(file, pattern) for pattern in patterns))
    return list(dict.fromkeys([*wanted, *(file for file in files if file == "README.md")]))


def _folder(files: Sequence[str], variant: str | None) -> Iterator[str]:
    """Index, configs, vocabularies, and the weights of each part."""
    yield INDEX
    yield from (file for file in files if file.partition("/")[0] in BESIDE)
    held = [part for part in PARTS if f"{part}/config.json" in files]
    if PARTS[0] not in held:
        raise UsageError(f"its {INDEX} is not of a Stable Diffusion (it has no {PARTS[0]}); --file takes what you name")
    _require_variant(files, held, variant)
    for part in held:
        yield f"{part}/config.json"
        weights = _weights(files, f"{part}/", variant)
        if not weights:
            raise UsageError(f"its {part} has no weights that fromnoise reads ({' or '.join(ENDINGS)})")
        yield from weights
    yield from (file for file in files if file == FEW_STEPS)


def _root(files: Sequence[str], variant: str | None) -> list[str]:
    """A lone part, an adapter, or the one file of weights."""
    if "config.json" in files and (weights := _weights(files, "", variant)):
        return ["config.json", *weights]
    for names in ADAPTERS:
        if names[0] in files:
            return [name for name in names if name in files]
    for ending in SINGLE:
        lone = [file for file in files if file.endswith(ending)]
        if len(lone) == 1:
            if variant and f".{variant}." not in lone[0]:
                note(f"it has no {variant} weights; taking {lone[0]}")
            return lone
        if lone:
            raise UsageError(f"it has several models; choose one with --file: {_some(lone)}")
    raise UsageError(f"it has no weights that fromnoise knows; it has {_some(files)}")


def _weights(files: Sequence[str], folder: str, variant: str | None) -> list[str]:
    """One set of weights in a folder: a file, or an index with its shards. The variant first, if one is asked for."""
    for ending in ENDINGS:
        for each in (variant, *VARIANTS) if variant else VARIANTS:
            for stem in STEMS:
                if taken := _one_of(files, folder + stem, each, ending):
                    _tell(folder, each, variant)
                    return taken
    return []


def _one_of(files: Sequence[str], stem: str, variant: str, ending: str) -> list[str]:
    """The single file, or the shards, of one stem, variant and ending; none when they are not there."""
    dotted = f".{variant}" if variant else ""
    if (single := f"{stem}{dotted}{ending}") in files:
        return [single]
    index = f"{stem}{ending}.index{dotted}.json"
    if index not in files:
        return []
    shard, number = re.escape(dotted), r"-\d{5}-of-\d{5}"
    named = re.compile(f"{re.escape(stem)}(?:{shard}{number}|{number}{shard}){re.escape(ending)}")
    return [index, *(file for file in files if named.fullmatch(file))]


def _tell(folder: str, taken: str, variant: str | None) -> None:
    if taken and taken != variant:
        note(f"{folder or 'it'} has no other weights than {taken}")
    if variant and not taken:
        note(f"{folder or 'it'} has no {variant} weights; taking the full ones")


def _require_variant(files: Sequence[str], parts: Sequence[str], variant: str | None) -> None:
    """UsageError when no part at all has the variant that was asked for."""
    own = [PurePosixPath(file).name for file in files if file.partition("/")[0] in parts]
    there = sorted({match[1] for name in own if (match := re.search(r"\.([a-z]\w*)(?:-\d|\.safetensors|\.bin)", name))})
    there = [each for each in there if each not in ("safetensors", "bin")]
    if variant and variant not in there:
        raise UsageError(f"it has no {variant} variant; there is {', '.join(there) or 'none'}")


def _some(files: Sequence[str]) -> str:
    return ", ".join(files[:SHOWN]) + (f", … {len(files)} in all" if len(files) > SHOWN else "") if files else "nothing"
