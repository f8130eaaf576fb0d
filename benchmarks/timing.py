"""What the benchmarks share: calls timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Call = Callable[[], object]

REST = 1.0
"""Seconds between two calls: an engine's threads look for work for a while after its last, and disturb the next one."""


def medians(calls: Mapping[str, Call], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Median wall seconds of each, in turns, after warming up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + warm_up):
        for name, call in calls.items():
            time.sleep(REST)
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in times.items()}
