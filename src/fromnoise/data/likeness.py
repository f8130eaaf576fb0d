"""Which sets' drawings of one concept are nearly the same drawing: they must fall on the same side of a split.

Drawings of two concepts may be as near (docs/evaluation.md says how many): the shipped weights were made without a look
at those.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from PIL import Image

__all__ = ["NEAR", "drawing_groups", "signature"]

NEAR = 0.04
"""Mean difference of two signatures, of 1, below which a person sees the same drawing."""

_SIDE = 24


def signature(picture: Image.Image) -> np.ndarray:
    """A small picture of a picture: (24, 24, 3) float32 in [0, 1]."""
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def drawing_groups(families: Mapping[str, str], signatures: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The drawing group of each picture of one concept, given its family by picture id.

    A group is a family, or several families' names joined by "+" where drawings are near duplicates.
    """
    joined = {family: {family} for family in families.values()}
    for one, other in combinations(sorted(families), 2):
        if families[one] != families[other] and _near(signatures[one], signatures[other]):
            _join(joined, families[one], families[other])
    return {picture: "+".join(sorted(joined[family])) for picture, family in families.items()}


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return float(np.abs(one - other).mean()) < NEAR


def _join(joined: dict[str, set[str]], one: str, other: str) -> None:
    together = joined[one] | joined[other]
    for family in together:
        joined[family] = together
