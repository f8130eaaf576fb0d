"""Model cards: what a model or adapter is, what it was made from, how good it is, and who may do what with it.

Everything comes from the files themselves; what they do not tell, the card says is not known.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fromnoise.hub.contents import LEARNT_FROM
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

SETTINGS = ("recipe.toml", "config.toml", "recipe.json", "settings.json", "run.json", LEARNT_FROM)
"""Files in which a training run leaves what it was asked for."""

TRAINING = "fromnoise.training"
"""The key in safetensors metadata whose value is a JSON object of the same settings."""

LEARNT = "pictures"
"""Among the settings: what was learnt from, as {"count": 12, "names": ["my-cat"]}, the names of files or folders."""

ABSOLUTE = re.compile(r"(?:/|~|[A-Za-z]:[\\/]).*[\\/]([^\\/]+)[\\/]?")
"""A path that tells where somebody keeps things, and the name it ends in."""

PART_FLAGS: Mapping[str, str] = MappingProxyType(
    {"unet": "--unet {}", "vae": "--vae {}", "controlnet": "--control {}=picture.png"}
)
"""How the command line is given a part by itself."""

FIGURES = "report.json"
"""What `fromnoise evaluate` writes."""


@dataclass(frozen=True)
class Facts:
    """What is known of a thing to publish: its parts with their sizes, what it learnt from, and settings by name.

    `part` is the name of a part by itself, None for all else.
    """

    kind: str
    rows: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    token: str | None = None
    part: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


def facts_of(path: Path, files: Mapping[str, Path], data: str | None = None, recipe: Path | None = None) -> Facts:
    """What is known of a model folder, an adapter or an embedding, and the files that go with it.

    `data` is what the person says that it was trained on, `recipe` settings that are not among the files. Raises
    FromnoiseError when none of its files is anything that fromnoise loads.
    """
    kind = _model(path) or next(filter(None, map(_adapter, _weights(files))), None)
    if kind is None:
        raise FromnoiseError(f"{path} holds no model, adapter or embedding that fromnoise can load")
    recorded = _recorded(files, kind["metadata"], recipe)
    lines = (*([data] if data else []), *_data(kind["metadata"], recorded))
    figures = {name: _last(text) for name, text in _flat(_read(files[FIGURES]))} if FIGURES in files else {}
    return Facts(**kind, settings=_settings(recorded), figures=figures, data=lines, pictures=_samples(files))


def _recorded(files: Mapping[str, Path], metadata: Mapping[str, str], recipe: Path | None) -> dict[str, Any]:
    """All settings that a training run left: in files, and in the metadata, which speaks of just this result."""
    found = [_read(recipe)] if recipe else []
    found += [_read(files[name]) for name in SETTINGS if name in files]
    with suppress(ValueError):
        found.append(json.loads(metadata.get(TRAINING, "{}")))
    return {name: value for each in found if isinstance(each, Mapping) for name, value in each.items()}


def _settings(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, without what is empty, what was learnt from, and where somebody keeps things."""
    told = _flat({name: value for name, value in recorded.items() if name != LEARNT or not isinstance(value, Mapping)})
    return {name: _last(text) for name, text in told if text}


def _samples(files: Mapping[str, Path]) -> tuple[str, ...]:
    """The pictures to show: first those outside folders, then the last of the others."""
    names = [name for name in sorted(files) if Path(name).suffix.lower() in PICTURES]
    first = [name for name in names if "/" not in name][:SAMPLES]
    others = [name for name in names if "/" in name]
    return (*first, *others[max(0, len(others) + len(first) - SAMPLES) :])


def card(repository: str, licence: str, facts: Facts) -> str:
    """The README.md of a repository, with the head that the hub reads."""
    from huggingface_hub import ModelCardData

    task = "text-to-image" if facts.part is None else None
    tags = [tag for tag in ("stable-diffusion", task, "fromnoise", *facts.tags) if tag and tag != "model"]
    base = facts.metadata.get("base_model")
    head = ModelCardData(
        license=licence,
        library_name="diffusers" if "model" in facts.tags else None,
        pipeline_tag=task,
        tags=tags,
        base_model=base if base and not ABSOLUTE.fullmatch(base) else None,
    )
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n".join(_body(repository, licence, facts)) + "\n"


def _body(repository: str, licence: str, facts: Facts) -> Iterator[str]:
    yield from (f"# {repository.partition('/')[2]}", "", f"{facts.kind}.", "")
    yield from _table(("part", "what"), facts.rows)
    yield from ("## Use", "", "```sh", f"fromnoise pull {repository}", *_command(repository, facts), "```", "")
    stated = {words: _last(facts.metadata.get(key, "")) for key, words in TRAINED.items()}
    told = {words: text for words, text in stated.items() if text not in ("", "None")}
    yield from ("## Training data", "", *(facts.data or (UNKNOWN,)), "", "## Settings", "")
    yield from _table(("setting", "value"), {**facts.settings, **told}.items()) or [UNKNOWN, ""]
    yield from ("## Figures", "")
    yield from _table(("measured", "value"), facts.figures.items()) or ["None were measured.", ""]
    yield from ("## Licence", "", f"{licence}. Pictures and base models keep licences of their own.", "")
    if facts.pictures:
        yield from ("## Sample pictures", "", *(f"![{name}]({name})" for name in facts.pictures), "")


def _command(repository: str, facts: Facts) -> Iterator[str]:
    """How to draw with it; nothing for a part that the command line can't be given by itself."""
    if "lora" in facts.tags:
        yield f'fromnoise "a picture" --lora {repository}:0.8'
    elif facts.token:
        yield f'fromnoise "a picture of {facts.token}" --embedding {repository}'
    elif facts.part is None:
        yield f'fromnoise "a picture" --model {repository}'
    elif facts.part in PART_FLAGS:
        yield f'fromnoise "a picture" --model MODEL {PART_FLAGS[facts.part].format(repository)}'


def _data(metadata: Mapping[str, str], recorded: Mapping[str, Any]) -> Iterator[str]:
    """What it learnt from, as far as something tells: kohya's folders, our pictures or drawings, or a setting."""
    if known := [*_folders(metadata), *_pictures(recorded.get(LEARNT))]:
        yield from known
    elif "trajectories" in recorded:
        yield f"{recorded['trajectories']} drawings by the base model itself"
    elif data := recorded.get("data") or recorded.get("dataset"):
        yield _last(str(data))


def _folders(metadata: Mapping[str, str]) -> Iterator[str]:
    """Kohya's folders of pictures, where a file names them."""
    with suppress(ValueError, AttributeError):
        for name, each in json.loads(metadata.get("ss_dataset_dirs", "{}")).items():
            yield f"- {name}: {each.get('img_count')} pictures, each {each.get('n_repeats')} times"


def _pictures(said: Any) -> Iterator[str]:
    """How many pictures, and what their files or folders are called; nothing where that can't be told."""
    if not isinstance(said, Mapping) or not isinstance(said.get("names"), list):
        return
    names = [_last(str(each)) for each in said["names"]]
    listed = ", ".join([*names[:SAMPLES], *(["…"] if len(names) > SAMPLES else [])])
    yield f"{said.get('count', 'Some')} pictures" + (f": {listed}" if listed else "")


def _last(text: str) -> str:
    """A path from the root as its last name, which is all that concerns others; any other text as it is."""
    found = ABSOLUTE.fullmatch(text)
    return found[1] if found else text


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
    part = next(iter(checkpoint.parts)) if checkpoint.is_lone else None
    kind = "A part by itself" if part else f"A Stable Diffusion of the family {checkpoint.family}"
    tags = ("model", "controlnet") if part == "controlnet" else ("model",)
    return {"kind": kind, "rows": tuple(rows), "tags": tags, "part": part, "metadata": dict(checkpoint.metadata)}


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
