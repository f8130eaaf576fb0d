"""`--quality`: how much work a picture is worth, as choices for what a request does not say."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fromnoise.request import Request

Choices = Mapping[str, Any]
"""Fields of a Request, and what they are to be."""

ALIGNED = "align-your-steps"
"""Stands for the schedule that a model's habits name for few steps."""

CHOICES: Mapping[str, Choices] = MappingProxyType(
    {
        "draft": {"steps": 8, "sampler": "dpmpp-2m", "schedule": ALIGNED, "interval": (0.0, 0.75), "reuse": (3, 1)},
        "balanced": {"steps": 10, "sampler": "dpmpp-2m", "schedule": ALIGNED, "interval": (0.0, 0.8), "reuse": (2, 1)},
        "best": {},
    }
)
"""Each quality's choices, measured in docs/speed.md; "best" leaves everything to the model's own habits."""


def chosen(request: Request, steps: int, aligned: str) -> Request:
    """The request with its quality's choices where it says nothing, and no quality left: it draws itself again.

    `steps` are the model's own: one that draws in fewer than a choice would (turbo, LCM) keeps its ways. `aligned` is
    the schedule that suits it for few steps.
    """
    choices = CHOICES.get(request.quality or "best", {})
    if choices.get("steps", 0) >= steps:
        choices = {}
    said = {**choices, **({"schedule": aligned} if choices.get("schedule") == ALIGNED else {})}
    unsaid = {name: value for name, value in said.items() if getattr(request, name) is None}
    return request.with_(quality=None, **unsaid)
