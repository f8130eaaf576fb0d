"""Real pictures to hold drawn ones against: what a judge saw in them, so that nobody needs the dataset again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fromnoise.checkpoints.folder import read_json, read_tensors, save_module, write_json, write_tensors
from fromnoise.data import Dataset, Picture, load_dataset
from fromnoise.evaluation.distances import FID_FEATURES
from fromnoise.evaluation.prompts import HELD_OUT, TRAINED, Prompt, pair
from fromnoise.models.judge import Judge
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import JUDGE, atomic_write
from fromnoise.training.judging import Trained, load_judge

COLUMNS = 12
"""Pictures in a row of the sheet that holds the held-out ones."""

_SHEET, _TENSORS, _TABLE = "held-out.webp", "real.safetensors", "real.json"


@dataclass(frozen=True)
class Ceiling:
    """The judge on `n` real pictures that it never saw: how many it got right, and its mean picture-text score.

    `style` takes look-alikes for one style, `own_style` does not.
    """

    n: int
    top1: int
    top5: int
    style: int
    own_style: int
    score: float


@dataclass(frozen=True)
class Reference:
    """The real pictures.

    `features` (N, D) are the judge's, on `axes` (F, D) around `centre` (F,); `prompts` asks for each, and `unseen` (N,)
    says which the judge was not trained on. `held_out` are the pictures of held-out pairs themselves, in order.
    """

    features: Tensor
    axes: Tensor
    centre: Tensor
    prompts: tuple[Prompt, ...]
    unseen: Tensor
    held_out: tuple[Image.Image, ...]
    ceiling: Ceiling

    def project(self, features: Tensor) -> Tensor:
        """A judge's features (N, F) on the axes that real pictures vary along, (N, D)."""
        return (features.float() - self.centre) @ self.axes

    def of(self, kind: str) -> Tensor:
        """The features of the real pictures that prompts of a kind ask for."""
        return self.features[torch.tensor([each.kind == kind for each in self.prompts])]

    def shown_by(self, prompts: Sequence[Prompt]) -> Tensor:
        """Which real pictures show what pairs ask for: their rows, (N,); the last one's where several do."""
        rows = {(each.concept, each.style): row for row, each in enumerate(self.prompts)}
        return torch.tensor([rows[each.concept, each.style] for each in prompts], dtype=torch.long)

    def asking(self, kind: str, *, unseen: bool = False) -> list[Prompt]:
        """The prompts of a kind; on wish only those whose real picture the judge never saw."""
        wanted = self.unseen.tolist() if unseen else [True] * len(self.prompts)
        return [each for each, right in zip(self.prompts, wanted, strict=True) if right and each.kind == kind]


def is_prepared(folder: Path, dataset: Path | None = None) -> bool:
    """True when `prepare` has written beside the judge in `folder`, and that judge has not been trained on since.

    Where a dataset is named, what was written must be of its pictures.
    """
    if not (folder / _TABLE).is_file():
        return False
    table = read_json(folder / _TABLE)
    known = dataset is None or table.get("dataset") == load_dataset(dataset).manifest.metadata_sha256
    return known and table.get("judge") == _judge_hash(folder)


def load_reference(folder: Path = JUDGE) -> Reference:
    """What `prepare` wrote beside the judge; FromnoiseError when it is missing or damaged."""
    table, tensors = read_json(folder / _TABLE), read_tensors(folder / _TENSORS)
    concepts, styles = read_json(folder / "concepts.json"), table["styles"]
    names = list(concepts)
    rows = zip(*(tensors[name].tolist() for name in ("concept", "style", "held_out")), strict=True)
    prompts = tuple(
        pair(names[concept], concepts[names[concept]][0], styles[style], HELD_OUT if held else TRAINED)
        for concept, style, held in rows
    )
    return Reference(
        features=tensors["features"].float(),
        axes=tensors["axes"].float(),
        centre=tensors["centre"].float(),
        prompts=prompts,
        unseen=tensors["unseen"].bool(),
        held_out=tuple(_cut(folder / _SHEET, int(tensors["held_out"].sum()))),
        ceiling=Ceiling(**table["ceiling"]),
    )


def prepare(dataset: Path, folder: Path = JUDGE) -> Reference:
    """Let the judge in `folder` read every picture of a dataset, and write beside it what evaluations need.

    Raises FromnoiseError when there is no judge, UsageError when there is no dataset or the judge doesn't know it.
    """
    judge, pictures = load_judge(folder), load_dataset(dataset)
    _require_known(judge, pictures, folder)
    seen = _features(judge, pictures)
    axes, centre = principal_axes(seen, min(FID_FEATURES, seen.shape[1]))
    styles, all_of = sorted(pictures.manifest.styles), pictures.pictures
    held = torch.tensor([each.split == "held_out" for each in all_of])
    tensors = {
        "features": ((seen - centre) @ axes).half(),
        "axes": axes,
        "centre": centre,
        "concept": torch.tensor([judge.index[each.concept] for each in all_of], dtype=torch.int16),
        "style": torch.tensor([styles.index(each.style) for each in all_of], dtype=torch.uint8),
        "held_out": held.to(torch.uint8),
        "unseen": torch.tensor([each.judge_fold == "test" for each in all_of], dtype=torch.uint8),
    }
    write_tensors(folder / _TENSORS, tensors)
    ceiling = asdict(measure_ceiling(judge, pictures))
    made_of = {"judge": _judge_hash(folder), "dataset": pictures.manifest.metadata_sha256}
    _paste([Image.fromarray(each) for each in pictures.all_pixels[held.nonzero().flatten().tolist()]], folder / _SHEET)
    write_json(folder / _TABLE, {**made_of, "styles": styles, "ceiling": ceiling})
    return load_reference(folder)


def compact(judge: Trained, folder: Path) -> None:
    """Write the judge to `folder` with vectors that are no wider than need be; its verdicts stay what they were.

    Pictures' vectors fill only the space that the text head's columns and bias span. What texts' vectors have outside
    of it no cosine ever sees, so both are turned into that space, and the texts' are cut to it.
    """
    head = judge.model.text_head
    basis = torch.linalg.qr(torch.cat([head.weight, head.bias[:, None]], 1)).Q
    smaller = replace(judge.model.config, text_dim=basis.shape[1])
    model = Judge(smaller)
    turned = {"text_head.weight": basis.T @ head.weight, "text_head.bias": basis.T @ head.bias}
    model.load_state_dict({**judge.model.state_dict(), **turned})
    save_module(folder, model, "Judge", file="model.safetensors")
    write_tensors(folder / "concepts.safetensors", {"vectors": (judge.vectors @ basis).half()})
    table = zip(judge.names, judge.labels, judge.cluster.tolist(), strict=True)
    write_json(folder / "concepts.json", {name: [label, cluster] for name, label, cluster in table})


def measure_ceiling(judge: Trained, dataset: Dataset) -> Ceiling:
    """The judge on the pictures of its test fold: no drawn picture can be expected to do better."""
    rows = dataset.indices(judge_fold="test")
    asked: list[Picture] = [dataset.pictures[row] for row in rows]
    reading = judge.study([Image.fromarray(each) for each in dataset.all_pixels[rows]])
    verdicts = judge.verdicts(reading, [each.concept for each in asked], [each.style for each in asked])
    return Ceiling(
        n=len(rows),
        top1=int(verdicts.top1.sum()),
        top5=int(verdicts.top5.sum()),
        style=int(verdicts.style.sum()),
        own_style=int(verdicts.own_style.sum()),
        score=float(verdicts.score.mean()),
    )


def principal_axes(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` directions (F, count) that features (N, F) vary most along, and their mean (F,).

    The directions share one scale, which makes the projected features' mean square 1.
    """
    centre = features.mean(0)
    _, deviations, directions = torch.linalg.svd(features - centre, full_matrices=False)
    spread = (deviations[:count].square().sum() / (len(features) * count)).sqrt()
    return directions[:count].T / spread, centre


def _require_known(judge: Trained, pictures: Dataset, folder: Path) -> None:
    """UsageError for pictures that the judge can't be asked about, or where evaluations would lack some kind."""
    strange = dict.fromkeys(each.label for each in pictures.pictures if each.concept not in judge.index)
    if strange:
        some = f"{next(iter(strange))!r}" + (f" and {len(strange) - 1} more concepts" if len(strange) > 1 else "")
        raise UsageError(
            f"the judge in {folder} learnt from another dataset than {pictures.folder}: it doesn't know {some}; "
            "name its own with --dataset"
        )
    if not (pictures.indices(split="held_out") and pictures.indices(judge_fold="test")):
        raise UsageError(f"the dataset in {pictures.folder} holds out no pictures to judge by; build a larger one")


def _judge_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _features(judge: Trained, dataset: Dataset) -> Tensor:
    parts = (dataset.all_pixels[start : start + 256] for start in range(0, len(dataset), 256))
    return torch.cat([judge.read([Image.fromarray(each) for each in part]).features for part in parts])


def _paste(pictures: Sequence[Image.Image], path: Path) -> None:
    """Write pictures of one size as one lossless picture."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(pictures) // COLUMNS) * height), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % COLUMNS * width, index // COLUMNS * height))
    with atomic_write(path, overwrite=True) as temporary:
        sheet.save(temporary, "WEBP", lossless=True, method=6)


def _cut(path: Path, count: int) -> Iterator[Image.Image]:
    """The pictures that `_paste` wrote."""
    try:
        sheet = Image.open(path).convert("RGB")
    except OSError as error:
        raise FromnoiseError(f"{path} is missing or damaged: {error}") from error
    side = sheet.width // COLUMNS
    for index in range(count):
        left, top = index % COLUMNS * side, index // COLUMNS * side
        yield sheet.crop((left, top, left + side, top + side))
