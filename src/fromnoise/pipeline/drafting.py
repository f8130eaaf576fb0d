"""Draft, keep, finish: many pictures begun, some gone on with bit-exactly, or branched with other words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from fromnoise.diffusion.samplers import Step, last
from fromnoise.images.sheets import contact_sheet, stacked
from fromnoise.pipeline.drawing import Picture, Pipeline
from fromnoise.pipeline.passes import first_steps
from fromnoise.request import Begun, Request
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import atomic_write

NUMBER = re.compile("[1-9][0-9]*")
"""What a draft's files are called."""

PER_ROW = 4
"""Pictures side by side on it."""


@dataclass(frozen=True)
class Draft:
    """A picture begun: the request that draws it alone, and the step at which it stands."""

    request: Request
    step: Step


def draft(pipe: Pipeline, request: Request | str, first: int, **fields: Any) -> Iterator[Draft]:
    """Draw only the `first` few steps of each of a request's pictures, one picture per call.

    Raises UsageError when the drawing has no more steps than that.
    """
    request = pipe.resolve(request, **fields)
    require_steps_left(pipe, request, first)
    for alone in pipe.alone(request):
        step = last(islice(pipe.steps(alone), first))
        if step.index < first:  # DPM adaptive needed fewer
            _require_left(step.index, first)
        yield Draft(alone.with_(dtype=pipe.format), step)


def require_steps_left(pipe: Pipeline, request: Request, first: int) -> None:
    """UsageError unless a draft of so many steps of a resolved request leaves some to be gone on with."""
    _require_left(first_steps(pipe, request), first)


def _require_left(total: int, first: int) -> None:
    if total < 2:
        raise UsageError(f"a drawing of {total} step has nothing to draft; ask for more steps")
    if not 1 <= first < total:
        raise UsageError(f"a draft of {first} of {total} steps can't be finished; draft from 1 to {total - 1} of them")


def finish(
    pipe: Pipeline,
    draft: Draft,
    *,
    prompt: str | None = None,
    negative: str | None = None,
    guidance: float | None = None,
) -> Picture:
    """Go on with a draft to its end, bit-equal to drawing it in one go; or, told something else, a branch of it.

    The picture replays either way: a branch's request says in `begun` what its first steps were told.
    """
    said = {"prompt": prompt, "negative": negative, "guidance": guidance}
    request = branched(draft, **{name: value for name, value in said.items() if value is not None})
    return pipe.finish(last(pipe.steps(request, start=draft.step)), request)[0]


def branched(draft: Draft, **said: Any) -> Request:
    """The request that goes on from a draft with something else said from then on; its own when nothing is."""
    first = draft.request
    if not said:
        return first
    if first.begun is not None:
        raise UsageError("this drawing is a branch already; branch from the draft that it came from")
    return first.with_(begun=Begun(draft.step.index, first.prompt, first.negative, first.guidance), **said)


def write_draft(folder: Path, number: int, draft: Draft) -> None:
    """Save a draft: its request as 1.json, where it stands as 1.safetensors; the two replace older ones together."""
    request, step = files_of(folder, number)
    with atomic_write(request, overwrite=True) as new_request, atomic_write(step, overwrite=True) as new_step:
        new_request.write_text(draft.request.to_json(), encoding="utf-8")
        draft.step.save(new_step)


def remove_drafts(folder: Path, after: int = 0) -> None:
    """Delete the drafts in a folder whose numbers are higher than `after`."""
    for number in numbers_in(folder):
        if number > after:
            for path in files_of(folder, number):
                path.unlink()


def read_draft(folder: Path, number: int) -> Draft:
    """The draft of that number. UsageError when there is none, FromnoiseError when it is damaged."""
    if number not in _numbered(folder):
        known = numbers_in(folder)
        there = f"there are {', '.join(map(str, known))}" if known else "fromnoise draft makes some"
        raise UsageError(f"no draft {number} in {folder}; {there}")
    request, step = files_of(folder, number)
    try:
        return Draft(Request.from_json(request.read_text(encoding="utf-8")), Step.read(step))
    except Exception as error:  # safetensors has an exception of its own for a damaged file
        raise FromnoiseError(f"draft {number} in {folder} is damaged ({error}); draft it again") from error


def numbers_in(folder: Path) -> list[int]:
    """The numbers of the drafts in a folder, rising; other files with a number for a name are none of ours."""
    return [number for number in _numbered(folder) if _is_request(files_of(folder, number)[0])]


def files_of(folder: Path, number: int) -> tuple[Path, Path]:
    """Where a draft's request and its step are."""
    return folder / f"{number}.json", folder / f"{number}.safetensors"


def _numbered(folder: Path) -> list[int]:
    """The numbers of which a folder has both files, whatever they hold."""
    numbers = sorted(int(path.stem) for path in folder.glob("*.safetensors") if NUMBER.fullmatch(path.stem))
    return [number for number in numbers if all(path.is_file() for path in files_of(folder, number))]


def _is_request(path: Path) -> bool:
    try:
        Request.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, UsageError):
        return False
    return True


def draft_sheet(pipe: Pipeline, drafts: list[Draft]) -> Image.Image:
    """The pictures predicted so far, with the numbers that `finish` takes and their seeds."""
    images = [pipe.decode(each.step.denoised)[0] for each in drafts]
    labels = [f"{number}: seed {each.request.seed}" for number, each in enumerate(drafts, 1)]
    request, done = drafts[0].request, drafts[0].step.index
    title = f"{request.prompt} ({done} of {pipe.run_steps(request)} steps)"
    rows = range(0, len(images), PER_ROW)
    return stacked(
        [
            contact_sheet(
                [images[at : at + PER_ROW]], column_labels=labels[at : at + PER_ROW], title="" if at else title
            )
            for at in rows
        ]
    )
