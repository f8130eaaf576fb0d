"""ComfyUI's graph of nodes, from either of the two forms in which its pictures carry it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

DEEPEST = 50
"""Nodes followed along one chain: a damaged graph may go round."""

VALUES = ("value", "int", "float", "number", "string", "text", "seed", "noise_seed")
"""Where nodes that hold one value keep it."""

BYPASSED = 4
MUTED = 2

_KSAMPLER = ("steps", "cfg", "sampler_name", "scheduler")
WIDGETS: Mapping[str, tuple[str | None, ...]] = MappingProxyType(
    {
        "KSampler": ("seed", None, *_KSAMPLER, "denoise"),
        "KSamplerAdvanced": ("add_noise", "noise_seed", None, *_KSAMPLER, "start_at_step", "end_at_step"),
        "SamplerCustom": ("add_noise", "noise_seed", None, "cfg"),
        "RandomNoise": ("noise_seed",),
        "KSamplerSelect": ("sampler_name",),
        "BasicScheduler": ("scheduler", "steps", "denoise"),
        "KarrasScheduler": ("steps",),
        "ExponentialScheduler": ("steps",),
        "PolyexponentialScheduler": ("steps",),
        "AlignYourStepsScheduler": ("model_type", "steps", "denoise"),
        "CFGGuider": ("cfg",),
        "CLIPTextEncode": ("text",),
        "CLIPSetLastLayer": ("stop_at_clip_layer",),
        "CheckpointLoaderSimple": ("ckpt_name",),
        "UNETLoader": ("unet_name",),
        "VAELoader": ("vae_name",),
        "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
        "LoraLoaderModelOnly": ("lora_name", "strength_model"),
        "EmptyLatentImage": ("width", "height", "batch_size"),
        "LoadImage": ("image",),
        "ControlNetLoader": ("control_net_name",),
        "RescaleCFG": ("multiplier",),
        "PerturbedAttentionGuidance": ("scale",),
        "PrimitiveNode": ("value",),
        "PrimitiveInt": ("value",),
        "PrimitiveFloat": ("value",),
        "PrimitiveString": ("value",),
        "PrimitiveStringMultiline": ("value",),
        "StringConcatenate": ("string_a", "string_b", "delimiter"),
    }
)
"""What the numbered values of a node in the editor's form are called; None is a control of the editor's own."""


@dataclass(frozen=True)
class Node:
    """A node's class and its inputs: plain values, and links as [node, output]."""

    kind: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)


NOTHING = Node()


class Graph:
    """Nodes by their number. Anything that is no node is left out."""

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self.nodes: dict[str, Node] = {}
        for number, value in nodes.items():
            inputs = value.get("inputs") if isinstance(value, dict) else None
            if isinstance(inputs, dict):
                self.nodes[str(number)] = Node(str(value.get("class_type", "")), inputs)

    @classmethod
    def from_workflow(cls, workflow: Mapping[str, Any]) -> Graph:
        """From the editor's form, whose links are a list of their own and whose values have no names."""
        links = {str(each[0]): [str(each[1]), each[2]] for each in _lists(workflow.get("links"), 4)}
        nodes = [each for each in _list(workflow.get("nodes")) if isinstance(each, dict) and each.get("mode") != MUTED]
        return cls({str(each.get("id")): _api_node(each, links) for each in nodes})

    def node(self, link: Any) -> Node:
        """The node at a link's end, past all that only pass it on; `NOTHING` where there is none."""
        for _ in range(DEEPEST):
            node = self.nodes.get(str(link[0])) if is_link(link) else None
            if node is None:
                return NOTHING
            if not node.kind.startswith("Reroute"):
                return node
            link = next((each for each in node.inputs.values() if is_link(each)), None)
        return NOTHING

    def value(self, value: Any, depth: int = 0) -> Any:
        """A plain value, or the one at a link's end; None where there is none."""
        if not is_link(value):
            return None if isinstance(value, list | dict) else value
        node = self.node(value)
        found = next((node.inputs[key] for key in VALUES if key in node.inputs), None)
        return self.value(found, depth + 1) if depth < DEEPEST else None

    def upstream(self, node: Node, keys: Sequence[str]) -> Iterator[Node]:
        """The node and those before it, nearest first, along inputs of these names; each once."""
        seen, waiting = set[int](), [node]
        while waiting:
            node = waiting.pop(0)
            if id(node) in seen or node is NOTHING:
                continue
            seen.add(id(node))
            yield node
            waiting += [self.node(node.inputs[key]) for key in keys if is_link(node.inputs.get(key))]


def is_link(value: Any) -> bool:
    """True for [node, output]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)


def _api_node(node: Mapping[str, Any], links: Mapping[str, list[Any]]) -> dict[str, Any]:
    """A node of the editor's form in the other form."""
    kind = "Reroute" if node.get("mode") == BYPASSED else str(node.get("type", ""))
    linked = {
        str(each.get("name", "")): links[str(each.get("link"))]
        for each in _list(node.get("inputs"))
        if isinstance(each, dict) and str(each.get("link")) in links
    }
    return {"class_type": kind, "inputs": {**_widgets(kind, node.get("widgets_values")), **linked}}


def _widgets(kind: str, values: Any) -> dict[str, Any]:
    if isinstance(values, dict):
        return values
    named = zip(WIDGETS.get(kind, ()), _list(values), strict=False)
    return {name: value for name, value in named if name is not None and not isinstance(value, list | dict)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _lists(value: Any, least: int) -> list[list[Any]]:
    return [each for each in _list(value) if isinstance(each, list) and len(each) >= least]
