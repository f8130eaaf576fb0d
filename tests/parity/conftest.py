"""Small checkpoints of the published families, written once for all parity tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.make_checkpoint import write_folder
from fromnoise.models.published import FAMILIES, Family
from tests.small_families import small
from tests.tiny import randomise


def fill(module: nn.Module, seed: int) -> dict[str, Tensor]:
    return randomise(module.to_empty(device="cpu"), seed).state_dict()


def small_family(name: str) -> Family:
    """The family shrunk, with text as wide as the U-Net expects and CLIP's whole vocabulary."""
    published = FAMILIES[name].parts
    whole = {"vocab_size": 1, "cross_attention_dim": 16}
    parts = {
        part: {**small(name, part), **{field: json[field] // by for field, by in whole.items() if field in json}}
        for part, json in published.items()
    }
    return replace(FAMILIES[name], parts=parts)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def folder(name: str) -> Path:
        made = tmp_path_factory.mktemp(name)
        write_folder(made, small_family(name), torch.float32, 3, fill)
        return made

    return folder
