"""Settings that ComfyUI and InvokeAI leave in a PNG, as far as they can be told apart from the workflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INVOKE_WORDS = ("positive_prompt", "negative_prompt")
_DEEPEST = 20
"""Nodes followed from a sampler to its words: a workflow is a graph, and a damaged one may go round."""


@dataclass(frozen=True)
class ForeignSettings:
    """The tool, the words, and the plain numbers and names it kept."""

    tool: str
    prompt: str
    negative: str
    values: Mapping[str, str]


def read_foreign(texts: Mapping[str, str]) -> ForeignSettings | None:
    """From a picture's text chunks by name; None when no tool we know wrote them."""
    if "invokeai_metadata" in texts:
        return _invoke(_json_object(texts["invokeai_metadata"]))
    if "prompt" in texts:
        return _comfy(_json_object(texts["prompt"]))
    return None


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if isinstance(value, str | int | float)}


def _invoke(values: dict[str, Any]) -> ForeignSettings | None:
    if not values:
        return None
    prompt, negative = (str(values.get(key) or "") for key in _INVOKE_WORDS)
    model = values.get("model")
    named = {"model": model["name"]} if isinstance(model, dict) and "name" in model else {}
    rest = {key: value for key, value in _plain(values).items() if key not in _INVOKE_WORDS}
    return ForeignSettings("InvokeAI", prompt, negative, {**rest, **named})


def _comfy(nodes: dict[str, Any]) -> ForeignSettings | None:
    """The first node that has steps and a sampler, and the words that flow into it."""
    inputs = [_inputs(node) for node in nodes.values()]
    sampler = next((each for each in inputs if {"steps", "sampler_name"} <= each.keys()), None)
    if sampler is None:
        return None
    prompt, negative = (_words(nodes, sampler.get(side), side) for side in ("positive", "negative"))
    model = next((each["ckpt_name"] for each in inputs if "ckpt_name" in each), None)
    return ForeignSettings("ComfyUI", prompt, negative, _plain({**sampler, "model": model}))


def _inputs(node: Any) -> dict[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _words(nodes: dict[str, Any], link: Any, side: str, depth: int = 0) -> str:
    """Follow a link ([node, output]) to the text at its end: conditioning nodes pass it on under several names."""
    if isinstance(link, str):
        return link
    if not isinstance(link, list) or not link or depth > _DEEPEST:
        return ""
    inputs = _inputs(nodes.get(str(link[0])))
    source = next((inputs[key] for key in ("text", "text_g", side, "conditioning", "string") if key in inputs), None)
    return _words(nodes, source, side, depth + 1)
