"""The lines that cost.py prints as a Markdown table and as a picture of curves.

usage: python benchmarks/plot_cost.py LINES.csv... --plot docs/cost.svg
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from math import log2
from pathlib import Path

WIDTH, HEIGHT, EDGE = 340, 260, 44
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0")

Cells = dict[tuple[int, int], tuple[float, float]]
"""Seconds and gigabytes of a step by size and batch."""


def read(paths: Sequence[Path]) -> tuple[Cells, dict[int, tuple[float, float]]]:
    """The cells, and what decoding one picture takes by size."""
    cells: Cells = {}
    decodes: dict[int, tuple[float, float]] = {}
    for path in paths:
        for row in csv.DictReader(path.read_text().splitlines()):
            value = float(row["seconds"]), float(row["gigabytes"])
            if row["what"] == "step":
                cells[int(row["size"]), int(row["batch"])] = value
            elif row["what"] == "decode":
                decodes[int(row["size"])] = value
    return cells, decodes


def table(cells: Cells, decodes: dict[int, tuple[float, float]]) -> str:
    """Seconds and gigabytes, a line for each size."""
    batches = sorted({batch for _, batch in cells})
    lines = ["| size | " + " | ".join(f"batch {each}" for each in batches) + " | decode one |"]
    lines.append("|---" * (len(batches) + 2) + "|")
    for size in sorted({size for size, _ in cells}):
        found = [cells.get((size, batch)) for batch in batches] + [decodes.get(size)]
        said = ["" if each is None else f"{each[0]:.1f} s, {each[1]:.1f} GB" for each in found]
        lines.append(f"| {size}² | " + " | ".join(said) + " |")
    return "\n".join(lines)


def panel(cells: Cells, which: int, title: str, left: int) -> str:
    """One pair of axes, both in doublings: batch across, and seconds (0) or gigabytes (1) upwards."""
    values = [log2(each[which]) for each in cells.values()]
    low, high = int(min(values)) - (min(values) < 0), int(max(values)) + 1

    def place(batch: int, value: float) -> tuple[float, float]:
        across, up = log2(batch) / 3, (log2(value) - low) / (high - low)
        return left + EDGE + across * (WIDTH - 2 * EDGE), HEIGHT - EDGE - up * (HEIGHT - 2 * EDGE)

    drawn = [text(left + WIDTH / 2, 20, title), text(left + WIDTH / 2, HEIGHT - 10, "batch")]
    drawn += [text(place(each, 2.0**low)[0], HEIGHT - EDGE + 16, str(each)) for each in (1, 2, 4, 8)]
    drawn += [text(left + EDGE - 16, place(1, 2.0**each)[1] + 4, f"{2.0**each:g}") for each in range(low, high + 1)]
    for colour, size in zip(COLOURS, sorted({size for size, _ in cells}), strict=False):
        points = [place(batch, cells[at, batch][which]) for at, batch in sorted(cells) if at == size]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        drawn.append(text(points[-1][0] + 8, points[-1][1] - 6, f"{size}²", colour))
    return "\n".join(drawn)


def text(x: float, y: float, words: str, colour: str = "#555") -> str:
    """Centred words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="{colour}">{words}</text>'


def main() -> None:
    """Read, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, nargs="+")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    cells, decodes = read(args.lines)
    print(table(cells, decodes))
    if args.plot:
        panels = panel(cells, 0, "seconds of a guided step", 0) + panel(cells, 1, "peak memory in GB", WIDTH)
        size = f'width="{2 * WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12"'
        args.plot.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<rect width="100%" height="100%" fill="white"/>\n'
            f"{panels}\n</svg>\n"
        )


if __name__ == "__main__":
    main()
