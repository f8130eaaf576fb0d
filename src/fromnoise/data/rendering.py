"""From drawings to picture files: 128×128 RGB PNGs over white."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from fromnoise.data.drawings import Drawing
from fromnoise.data.likeness import signature
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import atomic_write

__all__ = ["SIDE", "Progress", "Rendered", "encode", "render", "render_all", "require_renderer"]

SIDE = 128
"""Width and height of every picture of a dataset, in pixels."""

Progress = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""

# resvg rejects sizes in pt, in or mm at its default of 0; 96 is what CSS defines.
_DPI = 96

# Vectors are drawn larger and averaged down, so that their thin lines get the soft edges that bitmaps have.
_OVERSAMPLING = 2

_CHUNK = 32


@dataclass(frozen=True)
class Rendered:
    """A drawing's picture on disk, and what its look-alikes are found by."""

    drawing: Drawing
    file_name: str
    sha256: str
    signature: np.ndarray


def require_renderer() -> None:
    """UsageError unless the library that draws SVG is there."""
    if find_spec("resvg_py") is None:
        raise UsageError("drawings are rendered by resvg: pip install 'fromnoise[train]'")


def render(drawing: Drawing) -> Image.Image:
    """The drawing as a 128×128 RGB picture over white, its proportions kept.

    Raises FromnoiseError for a drawing that can't be parsed.
    """
    try:
        rgba = _rasterise(drawing.content) if isinstance(drawing.content, str) else _open(drawing.content)
    except (ValueError, OSError) as error:
        raise FromnoiseError(f"{drawing.style}: can't render {drawing.name} ({error}); leave it out") from error
    rgba.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIDE, SIDE), "white")
    canvas.alpha_composite(rgba, ((SIDE - rgba.width) // 2, (SIDE - rgba.height) // 2))
    return canvas.convert("RGB")


def encode(picture: Image.Image) -> bytes:
    """The picture as a PNG without metadata: the same bytes for the same pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def render_all(
    folder: Path, drawings: Sequence[Drawing], file_names: Sequence[str], progress: Progress | None, workers: int
) -> list[Rendered]:
    """Render every drawing to its file under `folder`; blank pictures are left out, the order is the drawings'."""
    found = []
    jobs = [(folder, *job) for job in zip(drawings, file_names, strict=True)]
    for done, each in enumerate(_mapped(jobs, workers), start=1):
        if each is not None:
            found.append(each)
        if progress:
            progress(done, len(jobs))
    return found


def _mapped(jobs: Sequence[tuple[Path, Drawing, str]], workers: int) -> Iterator[Rendered | None]:
    if workers <= 1:
        yield from map(_render_file, jobs)
        return
    # Fresh processes: a fork of one that has threads (torch, a progress bar) may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_render_file, jobs, chunksize=_CHUNK)


def _render_file(job: tuple[Path, Drawing, str]) -> Rendered | None:
    """Render and write one picture; None for a blank one."""
    folder, drawing, file_name = job
    picture = render(drawing)
    if picture.getextrema() == ((255, 255),) * 3:
        return None
    png = encode(picture)
    with atomic_write(folder / file_name, overwrite=True) as temporary:
        temporary.write_bytes(png)
    return Rendered(drawing, file_name, hashlib.sha256(png).hexdigest(), signature(picture))


def _rasterise(svg: str) -> Image.Image:
    import resvg_py

    side = SIDE * _OVERSAMPLING
    return _open(bytes(resvg_py.svg_to_bytes(svg_string=svg, dpi=_DPI, width=side, skip_system_fonts=True)))


def _open(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGBA")
