"""What an evaluation found, for people, for programs, and to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from PIL import Image

from fromnoise.evaluation.distances import FID_FEATURES, KernelDistance
from fromnoise.evaluation.prompts import HELD_OUT, REWORDED, TRAINED, Prompt
from fromnoise.evaluation.statistics import Estimate
from fromnoise.images.sheets import contact_sheet, stacked
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.paths import atomic_write, require_writable

FILES = ("report.json", "report.txt", "sheet.png")
"""What a report is saved as."""

SHEET_COLUMNS = 8
SHEET = {TRAINED: 32, HELD_OUT: 16, REWORDED: 16}
"""How many pictures of each kind the sheet shows."""


@dataclass(frozen=True)
class Shares:
    """Judge B on the pictures of one kind of prompt: shares in [0, 1], alone and of the judge's ceiling.

    `style` is None where the prompts name none; `score` is the mean picture-text score.
    """

    kind: str
    top1: Estimate
    top5: Estimate
    score: Estimate
    top1_of_ceiling: Estimate | None
    top5_of_ceiling: Estimate | None
    style: Estimate | None = None
    style_of_ceiling: Estimate | None = None


@dataclass(frozen=True)
class Limits:
    """The judge on real pictures that it never saw; `own_style` tells even look-alike styles apart."""

    top1: Estimate
    top5: Estimate
    style: Estimate
    own_style: Estimate
    score: float


@dataclass(frozen=True)
class Likeness:
    """Drawn pictures as a cloud: squared MMD of those of held-out pairs to the real ones of other held-out pairs.

    The floors are the same for the autoencoder's reconstructions of the real ones, and for these themselves. `fid`
    compares the drawn pictures of trained pairs with real ones of other trained pairs, since there are too few
    held-out ones, and `fid_real` the real ones of the drawn pairs; None when fewer than 2,000 were drawn. `psnr` is
    the reconstruction's, in dB.
    """

    kid: KernelDistance | None
    kid_rebuilt: KernelDistance | None
    kid_real: KernelDistance | None
    fid: float | None
    fid_real: float | None
    psnr: float


@dataclass(frozen=True)
class Recall:
    """Median distances in judge features that tell drawing from recalling.

    From a real picture to its own reconstruction (what a copy would be), and to the nearest picture trained on from
    held-out real pictures, from drawn ones of held-out pairs, and from drawn ones of trained pairs. `copies` is the
    share of the last that are as near as 95 % of reconstructions are to their originals.
    """

    reconstruction: float
    real_held_out: float
    drawn_held_out: float | None
    drawn_trained: float | None
    copies: Estimate | None


@dataclass(frozen=True)
class Report:
    """All figures of one evaluation.

    `settings` is what was asked of the model, `dtype` and `threads` how it was run, `rebuilt` the judge on the
    autoencoder's reconstructions of real held-out pictures (most of which it saw in training): what a perfect denoiser
    would get. The sheet is a picture of pictures.
    """

    model: str
    model_hash: str | None
    settings: dict[str, Any]
    dtype: str
    threads: int
    shares: tuple[Shares, ...]
    rebuilt: Shares
    ceiling: Limits
    likeness: Likeness
    recall: Recall
    seconds: float
    sheet: Image.Image = field(repr=False, compare=False)

    def to_json(self) -> str:
        """Everything but the sheet."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "sheet"}
        return json.dumps(values, indent=2, default=asdict) + "\n"

    def to_text(self) -> str:
        """The figures as a page of text."""
        return "\n".join(_lines(self)) + "\n"

    def save(self, folder: Path, *, overwrite: bool = False) -> list[Path]:
        """Write `FILES`; their paths."""
        paths = [folder / name for name in FILES]
        for path, text in zip(paths, (self.to_json(), self.to_text()), strict=False):
            with atomic_write(path, overwrite=overwrite) as temporary:
                temporary.write_text(text, encoding="utf-8")
        with atomic_write(paths[2], overwrite=overwrite) as temporary:
            self.sheet.save(temporary, "PNG")
        return paths


def require_room(folder: Path, *, overwrite: bool = False) -> None:
    """UsageError unless a report can be saved in `folder`: said before hours of drawing rather than after."""
    for path in (folder / name for name in FILES):
        if path.is_dir() or (path.exists() and not overwrite):
            raise UsageError(f"{path} exists; choose another folder or allow overwriting")
    new = not folder.exists()
    require_writable(folder / FILES[0])
    if new:
        folder.rmdir()  # nothing is left of an evaluation that ends early


def sheet(prompts: Sequence[Prompt], pictures: Sequence[Image.Image]) -> Image.Image:
    """The first pictures of each kind, `SHEET` says how many, below their prompts."""
    rows = []
    for kind, count in SHEET.items():
        chosen = [(each.text, picture) for each, picture in zip(prompts, pictures, strict=True) if each.kind == kind]
        for start in range(0, min(count, len(chosen)), SHEET_COLUMNS):
            texts, shown = zip(*chosen[start : min(count, start + SHEET_COLUMNS)], strict=True)
            rows.append(contact_sheet([shown], column_labels=texts, title="" if start else kind))
    return stacked(rows)


def _lines(report: Report) -> Iterator[str]:
    settings = report.settings
    yield (
        f"{report.model} ({report.model_hash}), {settings['steps']} steps of {settings['sampler']}, "
        f"guidance {settings['guidance']:g}, seed {settings['seed']}, {report.dtype}, {report.threads} "
        f"thread{'s' * (report.threads != 1)}, {report.seconds:.0f} s"
    )
    yield ""
    yield f"{'judge B':18}{'n':>5}  {'top-1':>18}  {'top-5':>18}  {'style':>18}  {'score':>6}"
    for each in report.shares:
        yield _row(each)
        yield (
            f"{'  of the ceiling':23}  {_share(each.top1_of_ceiling)}  {_share(each.top5_of_ceiling)}  "
            f"{_share(each.style_of_ceiling)}"
        )
    yield _row(report.rebuilt)
    limits = report.ceiling
    yield (
        f"{'real (ceiling)':18}{limits.top5.n:5d}  {_share(limits.top1)}  {_share(limits.top5)}  "
        f"{_share(limits.style)}  {limits.score:6.3f}"
    )
    yield ""
    yield from _cloud_lines(report.likeness)
    yield from _recall_lines(report.recall)


def _row(shares: Shares) -> str:
    return (
        f"{shares.kind:18}{shares.top5.n:5d}  {_share(shares.top1)}  {_share(shares.top5)}  {_share(shares.style)}  "
        f"{shares.score.value:6.3f}"
    )


def _cloud_lines(likeness: Likeness) -> Iterator[str]:
    clouds = {"drawn": likeness.kid, "rebuilt": likeness.kid_rebuilt, "real": likeness.kid_real}
    found = [f"{name} {1000 * kid.value:.1f} ± {1000 * kid.deviation:.1f}" for name, kid in clouds.items() if kid]
    yield f"KID x 1000 to other held-out real pictures: {', '.join(found)}"
    if likeness.fid is not None:
        found = [f"drawn {likeness.fid:.2f}", f"real {likeness.fid_real:.2f}"]
        yield f"FID of trained pairs to other real ones, {FID_FEATURES} features: {', '.join(found)}"
    yield f"reconstruction {likeness.psnr:.1f} dB"


def _recall_lines(recall: Recall) -> Iterator[str]:
    yield "median distance in judge features"
    yield f"  real to its reconstruction               {recall.reconstruction:6.2f}"
    yield f"  held-out real to nearest trained on      {recall.real_held_out:6.2f}"
    if recall.drawn_held_out is not None:
        yield f"  drawn held-out to nearest trained on     {recall.drawn_held_out:6.2f}"
    if recall.drawn_trained is not None and recall.copies:
        yield f"  drawn trained to nearest trained on      {recall.drawn_trained:6.2f}"
        yield f"  drawn trained as near as a copy          {_share(recall.copies).strip()}"


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return f"{'-':>18}"
    return f"{100 * estimate.value:5.1f} % {100 * estimate.low:4.0f}-{min(999, 100 * estimate.high):<4.0f}".rjust(18)
