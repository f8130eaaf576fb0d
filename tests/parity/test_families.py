"""Every published family at small widths against diffusers and transformers, every parameter random."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fromnoise.checkpoints.building import build
from fromnoise.checkpoints.checkpoint import class_of
from fromnoise.models.published import FAMILIES
from tests.parity.oracle import LIMITS, build_theirs, difference, load_theirs, their_arguments, their_keys
from tests.small_families import random, small, unet_inputs


def distinct_parts() -> list[tuple[str, str]]:
    """One (family, part) for every published config that differs in more than the size of picture."""
    found = {}
    for family in FAMILIES.values():
        for part, json in family.parts.items():
            structure = str({name: value for name, value in json.items() if name != "sample_size"})
            found.setdefault(structure, (family.name, part))
    return list(found.values())


PARTS = distinct_parts()
UNETS = ("sd1", "sd1-inpaint", "sd2", "sd2-inpaint", "sdxl", "lcm")
"""The families whose networks differ in more than the size of picture."""
TEXTS = [("sd1", "text_encoder"), ("sd2", "text_encoder"), ("sdxl", "text_encoder_2")]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("family", UNETS)
def test_unet(family: str, dtype: torch.dtype) -> None:
    json = small(family, "unet")
    ours = random(json, dtype)
    theirs = load_theirs(json, ours)
    x, time, words, extras = unet_inputs(ours.config, 2, 9, dtype)
    arguments = their_arguments(extras, dtype, json["time_cond_proj_dim"])
    with torch.no_grad():
        mine, reference = ours(x, time, words, extras), theirs(x, time, words, **arguments).sample
    assert difference(mine, reference) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(("family", "part"), TEXTS)
def test_text_encoder(family: str, part: str, dtype: torch.dtype) -> None:
    json = small(family, part)
    ours = random(json, dtype)
    theirs = load_theirs(json, ours)
    tokens = torch.randint(0, 700, (3, 77), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[0, 4:], tokens[1, 9:], tokens[2, 75:] = 770, 771, 771, 771
    with torch.no_grad():
        reference = theirs(tokens, output_hidden_states=True)
        states, pooled = ours.states(tokens), ours.pooled(tokens)
    for mine, their in zip(states, reference.hidden_states, strict=True):
        assert difference(mine, their) <= LIMITS[dtype]
    assert difference(ours(tokens), reference.last_hidden_state) <= LIMITS[dtype]
    their_pooled = reference.text_embeds if ours.config.projects else reference.pooler_output
    assert difference(pooled, their_pooled) <= LIMITS[dtype]
    assert torch.equal(ours.pooled(tokens, states[-1]), pooled)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize(("family", "part"), PARTS)
def test_the_published_configuration_has_the_references_keys(family: str, part: str) -> None:
    json = FAMILIES[family].parts[part]
    with torch.device("meta"):
        ours, theirs = shapes(build(json)), shapes(build_theirs(json))
    assert len(ours) > 100
    assert dict(zip(their_keys(class_of(json), list(ours)), ours.values(), strict=True)) == theirs


@pytest.mark.parametrize(("family", "part"), PARTS)
def test_a_config_written_by_us_means_the_same(family: str, part: str) -> None:
    json = small(family, part)
    config = build(json).config
    written = {"_class_name": class_of(json), **config.to_json()}
    with torch.device("meta"):
        assert build(written).config == config
        assert shapes(build_theirs(written)) == shapes(build_theirs(json))
