"""What the benchmarks share: calls timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Call = Callable[[], object]


def medians(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Median wall seconds of each, in turns, after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in times.items()}
