"""ComfyUI: the sampler that made the picture, and what flows into it, into a Request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fromnoise.images.foreign.draft import Draft, clean, damaged, json_object, plain, short
from fromnoise.images.foreign.graph import DEEPEST, Graph, Node, is_link
from fromnoise.images.foreign.names import (
    COMFYUI_SAMPLER_NODES,
    COMFYUI_SAMPLERS,
    COMFYUI_SCHEDULE_NODES,
    COMFYUI_SCHEDULES,
)
from fromnoise.images.settings import Settings
from fromnoise.runtime.checks import LONGEST_TEXT

TOOL = "ComfyUI"

PICTURE = ("images", "image", "samples", "samples_to", "samples_from", "latent", "latent_image", "pixels")
"""Inputs by which a picture comes from a sampler, and a sampler's start from a picture."""

PARTS = ("noise", "guider", "sampler", "sigmas")
"""Inputs of a sampler that is put together from nodes: what they say is as if the sampler said it."""

FLOWS = frozenset({"positive", "negative", "model", "latent_image"})
"""Inputs of a sampler that are no numbers or names, even where their link ends at one."""

SAMPLERS = frozenset({"KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"})

TEXTS = ("text", "text_g", "t5xxl", "string", "value", "prompt", "conditioning")
"""Inputs that hold words, or pass on what they became."""

JOINED: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "ConditioningCombine": ("conditioning_1", "conditioning_2", " AND "),
        "ConditioningConcat": ("conditioning_to", "conditioning_from", " BREAK "),
        "ConditioningAverage": ("conditioning_to", "conditioning_from", " AND "),
        "StringConcatenate": ("string_a", "string_b", ""),
    }
)
"""Nodes that put two texts together, and the nearest to it that a prompt can say."""

DECODING = re.compile(r"VAEDecode.*|.*(Save|Preview).*")
"""Nodes after a sampler that leave the picture as it is."""


def read_comfyui(texts: Mapping[str, str]) -> Settings | None:
    """From the chunks `prompt` and `workflow`; None when neither is ComfyUI's.

    Of several passes the first is read, and the others are named in `unread`.
    """
    graph = _graph(texts)
    if graph is None:
        looks_like_it = texts.get("prompt", "").lstrip().startswith("{") or "workflow" in texts
        return damaged(TOOL, "prompt") if looks_like_it else None
    ends = _ends(graph)
    draft = Draft(TOOL, like="comfyui", weighting="comfyui")
    if not ends:
        draft.need("a sampler: its graph has none that is known here")
        return draft.settings()
    passes = [node for node in ends[0] if _is_sampler(node)]
    said = _merged(graph, passes[-1])
    _said(draft, said)
    _words(draft, graph, said)
    _model(draft, graph, said)
    _start(draft, graph, passes[-1], said)
    _afterwards(draft, graph, ends)
    return draft.settings()


def _graph(texts: Mapping[str, str]) -> Graph | None:
    """The graph as it was run, or else as the editor had it."""
    prompt, workflow = json_object(texts.get("prompt", "")), json_object(texts.get("workflow", ""))
    graphs = ([] if prompt is None else [Graph(prompt)]) + ([] if workflow is None else [Graph.from_workflow(workflow)])
    return next((graph for graph in graphs if graph.nodes), None)


def _is_sampler(node: Node) -> bool:
    return node.kind in SAMPLERS or {"steps", "sampler_name"} <= node.inputs.keys()


def _ends(graph: Graph) -> list[list[Node]]:
    """For each picture that is saved or shown, the nodes on the way to it, the last first; most samplers first.

    Where none is, the way to the first sampler. Ways without a sampler are left out.
    """
    saved = [node for node in graph.nodes.values() if re.search("Save|Preview", node.kind)]
    samplers = [node for node in graph.nodes.values() if _is_sampler(node)]
    for starts in (saved, samplers):
        ways = [list(graph.upstream(node, PICTURE)) for node in starts]
        ways = [way for way in ways if any(map(_is_sampler, way))]
        if ways:
            return sorted(ways, key=lambda way: -sum(map(_is_sampler, way)))
    return []


def _merged(graph: Graph, sampler: Node) -> dict[str, Any]:
    """A sampler's inputs with those of the nodes that are its parts; numbers are followed to where they are said."""
    found: dict[str, Any] = {}
    for node in reversed(list(graph.upstream(sampler, PARTS))):
        found |= _own(graph, node)
    return found


def _own(graph: Graph, node: Node) -> dict[str, Any]:
    """What one of these nodes says."""
    found: dict[str, Any] = {}
    if node.kind in COMFYUI_SAMPLER_NODES:
        found["sampler_name"] = COMFYUI_SAMPLER_NODES[node.kind]
    if node.kind in COMFYUI_SCHEDULE_NODES:
        found["scheduler"] = COMFYUI_SCHEDULE_NODES[node.kind]
    if node.kind == "BasicGuider":
        found |= {"positive": node.inputs.get("conditioning"), "cfg": 1.0}
    own = {key: value for key, value in node.inputs.items() if key not in PARTS}
    return found | {key: value if key in FLOWS else graph.value(value) for key, value in own.items()}


def _said(draft: Draft, said: Mapping[str, Any]) -> None:
    """The numbers and names that the sampler itself has."""
    draft.values = plain(said)
    seed = "seed" if "seed" in said else "noise_seed"
    for key, field in ((seed, "seed"), ("steps", "steps"), ("cfg", "guidance")):
        draft.take(field, said.get(key), key)
    if said.get("sampler_name") is not None:
        name = clean(said["sampler_name"]).removeprefix("sample_")
        draft.sampler(COMFYUI_SAMPLERS.get(name, name), "sampler_name", name)
    if said.get("scheduler") is not None:
        name = clean(said["scheduler"])
        name = "trailing" if name == "turbo" and said.get("steps") == 1 else name
        draft.schedule(COMFYUI_SCHEDULES.get(name, name), "scheduler", name)
    for key, usual in (("add_noise", "enable"), ("start_at_step", 0), ("return_with_leftover_noise", "disable")):
        if said.get(key, usual) not in (usual, True):
            draft.unread[key] = short(said[key])
    last = said.get("end_at_step")
    if isinstance(last, int) and isinstance(said.get("steps"), int) and last < said["steps"]:
        draft.unread["end_at_step"] = str(last)


def _words(draft: Draft, graph: Graph, said: Mapping[str, Any]) -> None:
    sides = [_Wording(draft, graph, side).text(said.get(side)) for side in ("positive", "negative")]
    draft.words(*sides, escape=_escaped)
    if not draft.prompt and "ConditioningZeroOut" not in draft.unread:
        draft.unread["positive"] = "no words found on the way to it"
    for name in re.findall(r"embedding:([^\s,:()]+)", f"{draft.prompt}\n{draft.negative}"):
        draft.need(f"the embedding {short(name)!r}")


def _escaped(text: str) -> str:
    """Square brackets mean nothing to ComfyUI."""
    return re.sub(r"(?<!\\)([\[\]])", r"\\\1", text)


class _Wording:
    """The words that flow into one side of a sampler; each node on the way is read once."""

    def __init__(self, draft: Draft, graph: Graph, side: str) -> None:
        self.draft, self.graph, self.side = draft, graph, side
        self.known: dict[int, str] = {}

    def text(self, value: Any, depth: int = 0) -> str:
        """The words at a link's end, no more of them than a prompt may have."""
        if not is_link(value):
            return value if isinstance(value, str) else ""
        node = self.graph.node(value)
        if id(node) not in self.known:
            self.known[id(node)] = self._read(node, depth)[: LONGEST_TEXT + 1]
        return self.known[id(node)]

    def _read(self, node: Node, depth: int) -> str:
        draft = self.draft
        if node.kind == "ConditioningZeroOut" or depth > DEEPEST:
            draft.unread["ConditioningZeroOut"] = f"the {self.side} prompt is nothing at all, not even an empty one"
            return ""
        if node.kind in JOINED:
            return self._joined(node, depth)
        if re.search("ControlNet|IPAdapter|GLIGEN|StyleModel|unCLIP", node.kind):
            draft.need(f"what {short(node.kind)} is given")
        elif re.search("SetArea|SetMask|SetTimestep", node.kind):
            draft.unread[short(node.kind)] = "words for a part of the picture or of the steps"
        key = next((key for key in (*TEXTS, self.side) if key in node.inputs), None)
        return "" if key is None else self.text(node.inputs[key], depth + 1)

    def _joined(self, node: Node, depth: int) -> str:
        first, second, between = JOINED[node.kind]
        texts = [self.text(node.inputs.get(key), depth + 1) for key in (first, second)]
        if node.kind == "StringConcatenate":
            return clean(self.graph.value(node.inputs.get("delimiter")) or "").join(texts)
        self.draft.unread[node.kind] = f"two prompts, read with{between}between them"
        return between.join(text for text in texts if text)


MODEL_NODES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"RescaleCFG": ("rescale", "multiplier"), "PerturbedAttentionGuidance": ("pag", "scale")}
)
"""Nodes on the model's way that are a Request's field, and the input that says its value."""


def _model(draft: Draft, graph: Graph, said: Mapping[str, Any]) -> None:
    """Where the network comes from, and all that changes it on the way; likewise the text encoder."""
    for node in graph.upstream(Node(inputs=said), ("model", "model1")):
        _model_node(draft, node.kind, {key: graph.value(value) for key, value in node.inputs.items()})
    words = Node(inputs={"conditioning": said.get("positive")})
    for node in graph.upstream(words, ("conditioning", "positive", "clip")):
        layer = graph.value(node.inputs.get("stop_at_clip_layer"))
        if isinstance(layer, int):
            draft.take("clip_skip", -layer, "stop_at_clip_layer")
    if "model" in draft.fields:
        draft.values["model"] = draft.fields["model"]


def _model_node(draft: Draft, kind: str, inputs: Mapping[str, Any]) -> None:
    for key in ("ckpt_name", "unet_name"):
        draft.take("model", inputs.get(key), key)
    if inputs.get("lora_name") is not None:
        weight = inputs.get("strength_model")
        draft.need(f"the LoRA {short(inputs['lora_name'])!r}" + ("" if weight is None else f" at {short(weight)}"))
    elif kind in MODEL_NODES:
        field, key = MODEL_NODES[kind]
        draft.take(field, inputs.get(key), kind)
    elif kind and inputs.keys() & {"model", "model1"}:
        draft.unread[short(kind)] = "changes the model"


def _start(draft: Draft, graph: Graph, sampler: Node, said: Mapping[str, Any]) -> None:
    """The size of an empty start, or that there was a picture."""
    denoise = said.get("denoise", 1.0)
    for node in graph.upstream(sampler, PICTURE):
        if node is sampler:
            continue
        if re.search("Mask|ForInpaint", node.kind):
            draft.need("the mask")
        if is_link(node.inputs.get("pixels")) or node.kind.startswith("LoadImage"):
            draft.need("the picture that it started from")
            draft.take("strength", denoise, "denoise")
        elif {"width", "height"} <= node.inputs.keys() and not any(is_link(node.inputs.get(key)) for key in PICTURE):
            _empty(draft, graph, node)
            if denoise != 1.0 and isinstance(denoise, int | float):
                draft.unread["denoise"] = short(denoise)


def _empty(draft: Draft, graph: Graph, node: Node) -> None:
    width, height, batch = (graph.value(node.inputs.get(key)) for key in ("width", "height", "batch_size"))
    draft.take("size", (width, height), "width and height")
    if batch not in (1, None):
        draft.unread["batch_size"] = (
            f"{short(batch)}: all from one stream of noise, and which of them this is isn't said"
        )


def _afterwards(draft: Draft, graph: Graph, ends: list[list[Node]]) -> None:
    """What happens between the first sampler and the picture, and an autoencoder of its own."""
    way = ends[0]
    first = max(index for index, node in enumerate(way) if _is_sampler(node))
    passes = [node for node in reversed(way[:first]) if _is_sampler(node)]
    for number, node in enumerate(passes, 2):
        values = plain(_merged(graph, node))
        draft.unread[f"pass {number}"] = short(", ".join(f"{key}: {value}" for key, value in values.items()))
    for node in way[:first]:
        if not _is_sampler(node) and not DECODING.fullmatch(node.kind):
            draft.unread.setdefault(short(node.kind), "changes the picture on its way")
        name = graph.value(graph.node(node.inputs.get("vae")).inputs.get("vae_name"))
        if name is not None:
            draft.need(f"the autoencoder {short(name)!r}")
    if any(way[first] not in other for other in ends[1:]):
        draft.unread["pictures"] = "its graph makes several, and which of them this is isn't said"
