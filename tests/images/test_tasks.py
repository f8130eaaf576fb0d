"""The settings of inpainting, variations and textures, through a picture's metadata and back."""

import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fromnoise.images.metadata import read_settings, save_options
from fromnoise.images.opening import open_image, to_png
from fromnoise.images.parameters import write_parameters
from fromnoise.request import MAX_SEED, TILINGS, Request

PNG = to_png(Image.new("RGB", (4, 4)))

tasks = st.fixed_dictionaries(
    {
        "variation": st.floats(0, 1).map(lambda value: round(value, 4)),
        "variation_seed": st.none() | st.integers(0, MAX_SEED),
        "tile": st.none() | st.sampled_from(TILINGS),
        "mask_blur": st.integers(0, 256),
    }
)
masks = st.fixed_dictionaries(
    {"init": st.just(PNG), "mask": st.binary(max_size=200), "mask_padding": st.none() | st.integers(0, 4096)}
)


def request(fields: dict[str, Any], more: dict[str, Any]) -> Request:
    stated = {"seed": 3, "steps": 9, "guidance": 4.0, "sampler": "euler", "schedule": "model", "size": (64, 64)}
    return Request("a wolf", **stated, **fields, **more)


@given(tasks, st.just({}) | masks)
@settings(max_examples=100, deadline=None)
def test_json_loses_nothing(fields: dict[str, Any], more: dict[str, Any]):
    asked = request(fields, more)
    assert Request.from_json(asked.to_json()) == asked


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@given(fields=tasks, more=st.just({}) | masks)
@settings(max_examples=15, deadline=None)
def test_a_file_loses_nothing(format: str, fields: dict[str, Any], more: dict[str, Any]):
    asked, buffer = request(fields, more), io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format, **save_options(format, asked))
    found = read_settings(open_image(buffer.getvalue()))
    assert found is not None
    assert found.request == asked


@given(tasks, st.just({}) | masks)
@settings(max_examples=60, deadline=None)
def test_the_text_that_others_read_says_it_too(fields: dict[str, Any], more: dict[str, Any]):
    asked = request(fields, more)
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = write_parameters(asked)
    found = read_settings(image)
    assert found is not None
    assert found.request is not None
    assert not found.unread
    assert ("the mask" in found.missing) == ("mask" in more)
    said = asked.with_(init=None, mask=None, weighting="a1111", like="diffusers", clip_skip=None)
    if not said.variation:
        said = said.with_(variation_seed=None)
    if asked.mask is None:
        said = said.with_(mask_blur=Request.mask_blur)
    assert replace(found.request, weighting="a1111", like="diffusers") == said


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("Variation seed: 123, Variation seed strength: 0.25", {"variation_seed": 123, "variation": 0.25}),
        ("Tiling: True", {"tile": "xy"}),
        ("Tiling: False", {"tile": None}),
        ("Mask blur: 4, Inpaint area: Only masked, Masked area padding: 32", {"mask_blur": 4, "mask_padding": 32}),
    ],
)
def test_the_web_uis_own_words(line: str, fields: dict[str, Any]):
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = f"a wolf\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64, {line}"
    found = read_settings(image)
    assert found is not None
    assert found.tool == "AUTOMATIC1111"
    assert found.request is not None
    assert {name: getattr(found.request, name) for name in fields} == fields
    assert not found.unread


@pytest.mark.parametrize("line", ["Tiling: maybe", "Variation seed strength: 7", "Mask blur: wide"])
def test_what_makes_no_sense_is_kept_as_unread(line: str):
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = f"a wolf\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, {line}"
    found = read_settings(image)
    assert found is not None
    assert list(found.unread) == [line.partition(":")[0]]
