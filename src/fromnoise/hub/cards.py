"""Model cards: what a model or adapter is, what it was made from, how good it is, and who may do what with it.

Everything comes from the files themselves; what they do not tell, the card says is not known.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fromnoise.runtime.errors import FromnoiseError

PICTURES = (".png", ".webp", ".jpg", ".jpeg")
SAMPLES = 12
"""Pictures that a card shows at most."""

UNKNOWN = "Not known: the files do not tell."

TRAINED: Mapping[str, str] = MappingProxyType(
    {
        "ss_base_model_version": "base model",
        "ss_sd_model_name": "base checkpoint",
        "ss_network_dim": "rank",
        "ss_network_alpha": "alpha",
        "ss_num_train_images": "pictures",
        "ss_epoch": "epochs",
        "ss_steps": "steps",
        "ss_learning_rate": "learning rate",
        "ss_unet_lr": "learning rate of the U-Net",
        "ss_text_encoder_lr": "learning rate of the text encoder",
        "ss_optimizer": "optimiser",
        "ss_resolution": "resolution",
        "ss_seed": "seed",
        "modelspec.title": "title",
        "modelspec.architecture": "architecture",
        "modelspec.resolution": "resolution",
        "modelspec.date": "made",
        "modelspec.description": "description",
    }
)
"""Metadata in safetensors files by kohya's keys and the ModelSpec standard's, in words."""

SETTINGS = ("recipe.toml", "config.toml", "recipe.json", "settings.json", "run.json")
"""Files in which a training run leaves what it was asked for."""

FIGURES = "report.json"
"""What `fromnoise evaluate` writes."""


@dataclass(frozen=True)
class Facts:
    """What is known of a thing to publish. `rows` are its parts with their sizes; the rest is settings by name."""

    kind: str
    rows: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    token: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()


def facts_of(path: Path, files: Mapping[str, Path]) -> Facts:
    """What is known of a model folder, an adapter or an embedding, and the files that go with it.

    Raises FromnoiseError when none of its files is anything that fromnoise loads.
    """
    kind = _model(path) or next(filter(None, map(_adapter, _weights(files))), None)
    if kind is None:
        raise FromnoiseError(f"{path} holds no model, adapter or embedding that fromnoise can load")
    pictures = tuple(name for name in sorted(files) if Path(name).suffix.lower() in PICTURES)[:SAMPLES]
    settings = dict(pair for name in SETTINGS if name in files for pair in _flat(_read(files[name])))
    figures = dict(_flat(_read(files[FIGURES]))) if FIGURES in files else {}
    return Facts(**kind, settings=settings, figures=figures, pictures=pictures)


def card(repository: str, licence: str, facts: Facts) -> str:
    """The README.md of a repository, with the head that the hub reads."""
    from huggingface_hub import ModelCardData

    head = ModelCardData(
        license=licence,
        library_name="diffusers" if "model" in facts.tags else None,
        pipeline_tag="text-to-image",
        tags=["stable-diffusion", "text-to-image", "fromnoise", *(tag for tag in facts.tags if tag != "model")],
        base_model=facts.metadata.get("base_model"),
    )
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n".join(_body(repository, licence, facts)) + "\n"


def _body(repository: str, licence: str, facts: Facts) -> Iterator[str]:
    yield from (f"# {repository.partition('/')[2]}", "", f"{facts.kind}.", "")
    yield from _table(("part", "what"), facts.rows)
    yield from ("## Use", "", "```sh", f"fromnoise pull {repository}", _command(repository, facts), "```", "")
    stated = {words: facts.metadata.get(key, "") for key, words in TRAINED.items()}
    told = {words: text for words, text in stated.items() if text not in ("", "None")}
    yield from ("## Training data", "", *_data(facts), "", "## Settings", "")
    yield from _table(("setting", "value"), [*told.items(), *facts.settings.items()]) or [UNKNOWN, ""]
    yield from ("## Figures", "")
    yield from _table(("measured", "value"), facts.figures.items()) or ["None were measured.", ""]
    yield from ("## Licence", "", f"{licence}. Pictures and base models keep licences of their own.", "")
    if facts.pictures:
        yield from ("## Sample pictures", "", *(f"![{name}]({name})" for name in facts.pictures), "")


def _command(repository: str, facts: Facts) -> str:
    if "lora" in facts.tags:
        return f'fromnoise "a picture" --lora {repository}:0.8'
    if facts.token:
        return f'fromnoise "a picture of {facts.token}" --embedding {repository}'
    return f'fromnoise "a picture" --model {repository}'


def _data(facts: Facts) -> Iterator[str]:
    """Kohya's folders of pictures and most frequent tags, where a file names them."""
    with suppress(ValueError, AttributeError):
        folders = json.loads(facts.metadata.get("ss_dataset_dirs", "{}"))
        for name, each in folders.items():
            yield f"- {name}: {each.get('img_count')} pictures, each {each.get('n_repeats')} times"
        if folders:
            return
    yield facts.settings.get("data") or facts.settings.get("dataset") or UNKNOWN


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> list[str]:
    """A Markdown table; nothing for no rows."""
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows]
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *lines, ""] if lines else []


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _model(path: Path) -> dict[str, Any] | None:
    """A checkpoint's family and parts; None for what is none."""
    from fromnoise.checkpoints import open_checkpoint

    try:
        checkpoint = open_checkpoint(path)
    except FromnoiseError:
        return None
    rows = []
    for name, part in checkpoint.parts.items():
        count = sum(_product(each.shape) for each in part.tensors.values())
        rows.append((name, f"{part.class_name}, {count / 1e6:.2f} M parameters, {str(part.dtype).partition('.')[2]}"))
    kind = f"A Stable Diffusion of the family {checkpoint.family}" if not checkpoint.is_lone else "A part by itself"
    return {"kind": kind, "rows": tuple(rows), "tags": ("model",), "metadata": dict(checkpoint.metadata)}


def _adapter(path: Path) -> dict[str, Any] | None:
    """A LoRA or a textual inversion; None for what is neither."""
    from fromnoise.adapters import read_adapter, read_embedding

    with suppress(FromnoiseError):
        found = read_adapter(path)
        rows = tuple((part, f"{len(layers)} layers") for part, layers in found.parts.items())
        kind = f"A {found.kind} for Stable Diffusion of the family {found.family or 'that its author knows'}"
        return {"kind": kind, "rows": rows, "tags": ("lora",), "metadata": dict(found.metadata)}
    with suppress(FromnoiseError):
        word = read_embedding(path)
        rows = tuple((part or "text_encoder", f"{len(each)} x {each.shape[1]}") for part, each in word.vectors.items())
        kind = f"A textual inversion: the word `{word.token}`"
        metadata = dict(word.metadata)
        return {"kind": kind, "rows": rows, "tags": ("textual_inversion",), "token": word.token, "metadata": metadata}
    return None


def _weights(files: Mapping[str, Path]) -> list[Path]:
    return [path for name, path in sorted(files.items()) if name.endswith(".safetensors") and "/" not in name]


def _product(shape: Iterable[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _read(path: Path) -> Any:
    """A file of settings or figures; nothing for one that can't be read, which is no reason not to publish."""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError):
        return {}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as (name.of.field, text); long lists are told by their length."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        yield prefix, ", ".join(map(str, value)) if len(value) <= SAMPLES else f"{len(value)} values"
    else:
        yield prefix, f"{value:.4g}" if isinstance(value, float) else str(value)
