"""A dataset folder of coloured shapes in two styles, for tests that need one without fetching anything."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from pathlib import Path

from PIL import Image, ImageDraw

from fromnoise.data import Dataset, Picture, load_dataset
from fromnoise.data.records import FORMAT, MANIFEST, METADATA, WORDS, Manifest, to_lines

STYLES = ("noto", "twemoji")
COLOURS = {
    "cherry": "#d02020",
    "lime": "#20c020",
    "plum": "#6020a0",
    "sea": "#2060d0",
    "sun": "#f0c010",
    "ink": "#101010",
}
SIDE = 32


def draw(label: str, style: str) -> Image.Image:
    """A disc on white in one style, stripes on grey in the other."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(picture)
    if style == "noto":
        pen.ellipse((4, 4, SIDE - 5, SIDE - 5), fill=COLOURS[label])
    else:
        pen.rectangle((0, 0, SIDE, SIDE), fill="#808080")
        for y in range(2, SIDE, 8):
            pen.rectangle((2, y, SIDE - 3, y + 3), fill=COLOURS[label])
    return picture


def record(number: int, label: str, style: str, png: bytes) -> Picture:
    """Everything is trained on but twemoji's ink, held out, and noto's sun, the judges' test."""
    return Picture(
        file_name=f"pictures/{style}/{label}.png",
        id=f"{style}/{label}",
        concept=f"{0x1F000 + number:x}",
        label=label,
        group="objects",
        subgroup="shape",
        cluster=label,
        style=style,
        family=style,
        drawing_group=style,
        source="test",
        author="nobody",
        licence="CC0-1.0",
        sha256=hashlib.sha256(png).hexdigest(),
        split="held_out" if (label, style) == ("ink", "twemoji") else "train",
        judge_fold="test" if (label, style) == ("sun", "noto") else "train",
        flip=label != "ink",
        captions=(label, f"a {label}", f"a {label}, {style} style"),
    )


def write_dataset(folder: Path, labels: Collection[str] = COLOURS.keys()) -> Dataset:
    """Write the folder and read it."""
    pictures = []
    for label in labels:
        for style in STYLES:
            buffer = io.BytesIO()
            draw(label, style).save(buffer, "PNG")
            pictures.append(record(list(COLOURS).index(label), label, style, buffer.getvalue()))
            path = folder / pictures[-1].file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
    metadata = to_lines(pictures)
    (folder / METADATA).write_text(metadata)
    (folder / WORDS).write_text("")
    manifest = Manifest(
        format=FORMAT,
        side=SIDE,
        concepts=len(labels),
        pictures=len(pictures),
        splits={},
        judge_folds={},
        styles=dict.fromkeys(STYLES, len(labels)),
        sources=(),
        metadata_sha256=hashlib.sha256(metadata.encode()).hexdigest(),
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return load_dataset(folder)
