"""Whatever a file holds, reading it never fails, and what comes of it can be shown, written and used."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.images.foreign import read_foreign
from fromnoise.images.settings import Settings
from fromnoise.request import Request

NAMES = [
    "prompt",
    "workflow",
    "invokeai_metadata",
    "sd-metadata",
    "Dream",
    "dream",
    "parameters",
    "Comment",
    "Software",
]
KEYS = [
    *(
        "inputs",
        "class_type",
        "steps",
        "sampler_name",
        "positive",
        "negative",
        "latent_image",
        "model",
        "text",
        "1",
        "2",
    ),
    *(
        "positive_prompt",
        "image",
        "prompt",
        "loras",
        "weight",
        "scheduler",
        "seed",
        "width",
        "height",
        "clip_skip",
        "vae",
    ),
    *("nodes", "links", "widgets_values", "type", "id", "mode", "link", "name", "images", "sigmas", "cfg", "scale"),
]
KINDS = [
    "KSampler",
    "SaveImage",
    "CLIPTextEncode",
    "Reroute",
    "SamplerCustomAdvanced",
    "ConditioningCombine",
    "VAEEncode",
]

links = st.tuples(st.sampled_from(["1", "2", 1, 2, 3]), st.integers(0, 1)).map(list)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*KINDS, "\ud800", "euler", "karras", 10**400])
    | links
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8),
    max_leaves=25,
)
nodes = st.fixed_dictionaries(
    {"class_type": st.sampled_from(KINDS), "inputs": st.dictionaries(st.sampled_from(KEYS), leaves, max_size=8)}
)
graphs = st.dictionaries(st.sampled_from(["1", "2", "3", "4"]), nodes, min_size=1)
editors = st.fixed_dictionaries(
    {
        "nodes": st.lists(
            st.fixed_dictionaries(
                {"id": st.integers(1, 4), "type": st.sampled_from(KINDS), "mode": st.sampled_from([0, 2, 4, None])},
                optional={"inputs": st.lists(anything, max_size=4), "widgets_values": anything},
            ),
            max_size=4,
        ),
        "links": st.lists(st.lists(st.integers(0, 4) | st.none(), max_size=6), max_size=4),
    }
)


def check(found: Settings | None) -> None:
    if found is None:
        return
    for text in (found.prompt, found.negative, *found.missing, *found.values.values(), *found.unread.values()):
        text.encode()
    assert all("\n" not in each for each in (*found.missing, *found.unread.values()))
    if found.request is None:
        assert found.missing
    else:
        assert Request.from_json(found.request.to_json()) == found.request


@given(st.sampled_from(NAMES), anything | graphs | editors)
@settings(max_examples=200, deadline=None)
def test_any_json(name: str, value: Any):
    check(read_foreign({name: json.dumps(value)}))


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=200)))
@settings(max_examples=100, deadline=None)
def test_any_text(texts: dict[str, str]):
    check(read_foreign(texts))


@given(graphs, st.integers(0, 400), st.characters())
@settings(max_examples=80, deadline=None)
def test_any_damage_to_a_graph(graph: Any, place: int, letter: str):
    text = json.dumps(graph)
    check(read_foreign({"prompt": text[:place] + letter + text[place + 1 :]}))


def test_deep_nesting():
    for opening in ("[", '{"inputs":', '{"1":{"inputs":{"text":'):
        check(read_foreign({"prompt": opening * 20_000}))
    check(read_foreign({"Dream": '"' * 20_000}))
