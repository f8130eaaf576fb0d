"""ComfyUI's graphs, in both of their forms, into a Request."""

import json
from typing import Any

import pytest

from fromnoise.images.foreign.comfyui import read_comfyui
from fromnoise.images.foreign.names import COMFYUI_SAMPLERS, COMFYUI_SCHEDULES
from fromnoise.images.settings import Settings
from fromnoise.request import LIKE, SAMPLERS, SCHEDULES
from fromnoise.text.grammar import parse


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def default(**changes: Any) -> dict[str, Any]:
    """The graph that ComfyUI starts with, with some nodes changed."""
    numbers = {"seed": 8, "steps": 20, "cfg": 7.5, "sampler_name": "euler_ancestral", "scheduler": "karras"}
    flows = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    nodes = {
        "3": node("KSampler", denoise=1, **numbers, **flows),
        "4": node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="a wolf", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blurry", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }
    return {**nodes, **{key.removeprefix("n"): value for key, value in changes.items()}}


def sampler(**changes: Any) -> dict[str, Any]:
    each = default()["3"]
    return {**each, "inputs": {**each["inputs"], **changes}}


def read(nodes: Any) -> Settings:
    found = read_comfyui({"prompt": json.dumps(nodes), "workflow": "{}"})
    assert found is not None
    assert found.tool == "ComfyUI"
    return found


def test_the_graph_it_starts_with():
    found = read(default())
    drawn = found.request
    assert drawn is not None
    assert (drawn.prompt, drawn.negative, drawn.seed, drawn.steps) == ("a wolf", "blurry", 8, 20)
    assert (drawn.guidance, drawn.sampler, drawn.schedule) == (7.5, "euler-a", "karras")
    assert (drawn.size, drawn.model, drawn.weighting) == ((512, 768), "sd15.safetensors", "comfyui")
    assert drawn.like == ("comfyui" if "comfyui" in LIKE else LIKE[0])
    assert found.complete
    assert found.values["seed"] == "8"
    assert found.values["model"] == "sd15.safetensors"


def test_reroutes_and_primitives():
    found = read(
        default(
            n3=sampler(seed=["20", 0], steps=["21", 0], model=["22", 0], positive=["23", 0]),
            n20=node("Seed (rgthree)", seed=77),
            n21=node("PrimitiveInt", value=33),
            n22=node("Reroute", **{"": ["24", 0]}),
            n24=node("Reroute (rgthree)", **{"": ["4", 0]}),
            n23=node("Reroute", **{"": ["6", 0]}),
            n6=node("CLIPTextEncode", text=["25", 0], clip=["4", 1]),
            n25=node("StringConcatenate", string_a="a wolf", string_b=["26", 0], delimiter=", "),
            n26=node("PrimitiveString", value="at night"),
        )
    )
    assert found.request is not None
    assert (found.request.seed, found.request.steps, found.request.prompt) == (77, 33, "a wolf, at night")
    assert found.request.model == "sd15.safetensors"
    assert found.complete


def test_all_that_changes_the_model():
    found = read(
        default(
            n3=sampler(model=["12", 0]),
            n10=node("LoraLoader", lora_name="fur.safetensors", strength_model=0.8, model=["4", 0], clip=["4", 1]),
            n11=node("PerturbedAttentionGuidance", scale=3.0, model=["10", 0]),
            n12=node("RescaleCFG", multiplier=0.7, model=["13", 0]),
            n13=node("FreeU_V2", b1=1.3, model=["11", 0]),
            n14=node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["10", 1]),
            n6=node("CLIPTextEncode", text="a wolf", clip=["14", 0]),
            n15=node("VAELoader", vae_name="ft-mse.safetensors"),
            n8=node("VAEDecode", samples=["3", 0], vae=["15", 0]),
        )
    )
    drawn = found.request
    assert drawn is not None
    assert (drawn.clip_skip, drawn.rescale, drawn.pag, drawn.model) == (2, 0.7, 3.0, "sd15.safetensors")
    assert found.missing == ("the LoRA 'fur.safetensors' at 0.8", "the autoencoder 'ft-mse.safetensors'")
    assert found.unread == {"FreeU_V2": "changes the model"}


def test_a_sampler_put_together():
    nodes = default(
        n3=node("SamplerCustomAdvanced", noise=["20", 0], guider=["21", 0], sampler=["22", 0], sigmas=["23", 0])
    )
    nodes["3"]["inputs"]["latent_image"] = ["5", 0]
    nodes |= {
        "20": node("RandomNoise", noise_seed=2**63),
        "21": node("CFGGuider", cfg=5.0, model=["4", 0], positive=["6", 0], negative=["7", 0]),
        "22": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "23": node("SplitSigmas", step=3, sigmas=["24", 0]),
        "24": node("KarrasScheduler", steps=15, sigma_max=14.6, sigma_min=0.03, rho=7.0),
    }
    drawn = read(nodes).request
    assert drawn is not None
    assert (drawn.seed, drawn.guidance, drawn.steps) == (2**63, 5.0, 15)
    assert (drawn.sampler, drawn.schedule, drawn.prompt, drawn.model) == (
        "dpmpp-2m",
        "karras",
        "a wolf",
        "sd15.safetensors",
    )
    nodes["21"] = node("BasicGuider", model=["4", 0], conditioning=["6", 0])
    nodes["22"] = node("SamplerEulerAncestral", eta=1.0)
    nodes["24"] = node("BasicScheduler", scheduler="sgm_uniform", steps=1, denoise=1.0, model=["4", 0])
    drawn = read(nodes).request
    assert drawn is not None
    assert (drawn.guidance, drawn.sampler, drawn.schedule, drawn.negative) == (1.0, "euler-a", "sgm-uniform", "")


def test_of_two_passes_the_first_is_read():
    found = read(
        default(
            n12=node("KSampler", **{**sampler()["inputs"], "seed": 9, "denoise": 0.5, "latent_image": ["11", 0]}),
            n11=node("LatentUpscale", upscale_method="bicubic", width=1024, height=1536, samples=["3", 0]),
            n8=node("VAEDecode", samples=["12", 0], vae=["4", 2]),
        )
    )
    assert found.request is not None
    assert (found.request.seed, found.request.size) == (8, (512, 768))
    assert set(found.unread) == {"pass 2", "LatentUpscale"}
    assert "denoise: 0.5" in found.unread["pass 2"]


def test_several_pictures_and_what_comes_after():
    both = default(
        n12=node("KSampler", **{**sampler()["inputs"], "seed": 9, "latent_image": ["3", 0]}),
        n13=node("VAEDecode", samples=["12", 0], vae=["4", 2]),
        n14=node("ImageUpscaleWithModel", upscale_model=["15", 0], image=["13", 0]),
        n16=node("SaveImage", images=["14", 0]),
    )
    found = read(both)
    assert found.request is not None
    assert found.request.seed == 8
    assert set(found.unread) == {"pass 2", "ImageUpscaleWithModel"}
    both["12"]["inputs"]["latent_image"] = ["5", 0]
    assert read(both).unread["pictures"] == "its graph makes several, and which of them this is isn't said"


def test_embeddings_and_merges():
    merged = node("ModelMergeSimple", model1=["4", 0], model2=["31", 0], ratio=0.5)
    found = read(
        default(
            n3=sampler(model=["30", 0]),
            n30=merged,
            n6=node("CLIPTextEncode", text="(embedding:SDA768.pt:1.2) wolf", clip=["4", 1]),
        )
    )
    assert found.missing == ("the embedding 'SDA768.pt'",)
    assert found.unread == {"ModelMergeSimple": "changes the model"}


def test_a_multiplier_of_another_node_is_no_rescale():
    merged = node("ModelMergeSubtract", model1=["4", 0], model2=["31", 0], multiplier=1.0)
    found = read(default(n3=sampler(model=["30", 0]), n30=merged))
    assert found.request is not None
    assert found.request.rescale == 0
    assert found.unread == {"ModelMergeSubtract": "changes the model"}


def test_turbo_in_one_step():
    turbo = node("SDTurboScheduler", steps=1, denoise=1.0, model=["4", 0])
    nodes = default(n3=node("SamplerCustom", noise_seed=0, cfg=1.0, sampler=["22", 0], sigmas=["23", 0]), n23=turbo)
    nodes["3"]["inputs"] |= {key: sampler()["inputs"][key] for key in ("model", "positive", "negative", "latent_image")}
    nodes["22"] = node("KSamplerSelect", sampler_name="euler_ancestral")
    drawn = read(nodes).request
    assert drawn is not None
    assert (drawn.schedule, drawn.steps, drawn.guidance) == ("trailing", 1, 1.0)
    turbo["inputs"]["steps"] = 4
    assert "scheduler" in read(nodes).unread


def test_image_to_image_needs_its_picture():
    nodes = default(
        n3=sampler(latent_image=["20", 0], denoise=0.6),
        n20=node("VAEEncode", pixels=["21", 0], vae=["4", 2]),
        n21=node("LoadImage", image="start.png"),
    )
    found = read(nodes)
    assert found.request is not None
    assert (found.request.strength, found.request.size) == (0.6, None)
    assert found.missing == ("the picture that it started from",)
    nodes["20"] = node("VAEEncodeForInpaint", pixels=["21", 0], mask=["21", 1], vae=["4", 2])
    assert "the mask" in read(nodes).missing


def test_words_put_together():
    found = read(
        default(
            n3=sampler(positive=["20", 0], negative=["21", 0]),
            n20=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["22", 0]),
            n22=node("CLIPTextEncodeSDXL", text_g="the moon", text_l="the moon"),
            n21=node("ConditioningZeroOut", conditioning=["7", 0]),
        )
    )
    assert (found.prompt, found.negative) == ("a wolf AND the moon", "")
    assert set(found.unread) == {"ConditioningCombine", "ConditioningZeroOut"}


def test_control_nets_are_told():
    found = read(
        default(
            n3=sampler(positive=["20", 0], negative=["20", 1]),
            n20=node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=1.0, image=["30", 0]),
        )
    )
    assert (found.prompt, found.negative) == ("a wolf", "blurry")
    assert found.missing == ("what ControlNetApplyAdvanced is given",)


def test_square_brackets_are_letters_there():
    found = read(default(n6=node("CLIPTextEncode", text=r"a [red] (wolf:1.2) \[here\]", clip=["4", 1])))
    assert found.prompt == r"a [red] (wolf:1.2) \[here\]"
    assert found.request is not None
    assert found.request.prompt == r"a \[red\] (wolf:1.2) \[here\]"
    assert parse(found.request.prompt) is not None


def test_part_of_the_steps_and_of_a_batch():
    found = read(
        default(
            n3=node("KSamplerAdvanced", **sampler(noise_seed=5, start_at_step=4, end_at_step=10)["inputs"]),
            n5=node("EmptyLatentImage", width=64, height=64, batch_size=4),
        )
    )
    assert set(found.unread) == {"start_at_step", "end_at_step", "batch_size"}


@pytest.mark.parametrize("name", COMFYUI_SAMPLERS)
def test_samplers_that_we_have(name: str):
    found = read(default(n3=sampler(sampler_name=name)))
    assert found.request is not None
    if COMFYUI_SAMPLERS[name] in SAMPLERS.values():
        assert SAMPLERS[found.request.sampler or ""] == COMFYUI_SAMPLERS[name]
    else:
        assert found.unread["sampler_name"] == f"{name} (no such sampler here)"


@pytest.mark.parametrize("name", COMFYUI_SCHEDULES)
def test_schedules_that_we_have(name: str):
    found = read(default(n3=sampler(scheduler=name)))
    assert found.request is not None
    if COMFYUI_SCHEDULES[name] in SCHEDULES.values():
        assert SCHEDULES[found.request.schedule or ""] == COMFYUI_SCHEDULES[name]
    else:
        assert "scheduler" in found.unread


WORKFLOW = {
    "nodes": [
        {
            "id": 3,
            "type": "KSampler",
            "inputs": [
                {"name": "model", "link": 1},
                {"name": "positive", "link": 4},
                {"name": "negative", "link": 6},
                {"name": "latent_image", "link": 2},
                {"name": "seed", "link": 12, "widget": {"name": "seed"}},
            ],
            "widgets_values": [1, "randomize", 25, 6, "dpmpp_2m", "karras", 1],
        },
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["sd15.safetensors"]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [256, 512, 1]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a wolf"], "inputs": [{"name": "clip", "link": 3}]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": {"text": "blurry"}},
        {"id": 8, "type": "VAEDecode", "inputs": [{"name": "samples", "link": 7}]},
        {"id": 9, "type": "SaveImage", "inputs": [{"name": "images", "link": 9}], "widgets_values": ["ComfyUI"]},
        {"id": 10, "type": "Reroute", "inputs": [{"name": "", "link": 10}]},
        {"id": 11, "type": "PrimitiveNode", "widgets_values": [99, "fixed"]},
        {"id": 12, "type": "LoraLoader", "mode": 4, "inputs": [{"name": "model", "link": 11}], "widgets_values": ["x"]},
        {"id": 13, "type": "SaveImage", "mode": 2, "inputs": []},
    ],
    "links": [
        [1, 12, 0, 3, 0, "MODEL"],
        [2, 5, 0, 3, 3, "LATENT"],
        [3, 4, 1, 6, 0, "CLIP"],
        [4, 10, 0, 3, 1, "CONDITIONING"],
        [6, 7, 0, 3, 2, "CONDITIONING"],
        [7, 3, 0, 8, 0, "LATENT"],
        [9, 8, 0, 9, 0, "IMAGE"],
        [10, 6, 0, 10, 0, "CONDITIONING"],
        [11, 4, 0, 12, 0, "MODEL"],
        [12, 11, 0, 3, 4, "INT"],
    ],
}


@pytest.mark.parametrize("prompt", ["{", "{}", ""])
def test_the_editors_form_alone(prompt: str):
    found = read_comfyui({"prompt": prompt, "workflow": json.dumps(WORKFLOW)})
    assert found is not None
    drawn = found.request
    assert drawn is not None
    assert (drawn.prompt, drawn.negative, drawn.seed, drawn.steps) == ("a wolf", "blurry", 99, 25)
    assert (drawn.guidance, drawn.sampler, drawn.schedule, drawn.size) == (6.0, "dpmpp-2m", "karras", (256, 512))
    assert drawn.model == "sd15.safetensors"
    assert found.complete


def test_going_round():
    nodes = {
        "1": node(
            "KSampler", steps=1, sampler_name="euler", positive=["2", 0], negative=3, model=["1", 0], seed=["3", 0]
        ),
        "2": node("CLIPTextEncode", text=["2", 0], clip=["2", 0]),
        "3": node("PrimitiveInt", value=["3", 0]),
        "4": node("Reroute", **{"": ["4", 0]}),
        "5": node("SaveImage", images=["4", 0]),
    }
    nodes["1"]["inputs"]["latent_image"] = ["1", 0]
    found = read(nodes)
    assert found.request is not None
    assert found.request.seed is None


@pytest.mark.parametrize("prompt", ['{"1":', "{]"])
def test_damage_is_said(prompt: str):
    found = read_comfyui({"prompt": prompt})
    assert found is not None
    assert found.request is None
    assert "damaged" in found.missing[0]


def test_no_sampler_is_said():
    found = read({"1": node("LoadImage", image="a.png")})
    assert "no" not in found.prompt
    assert "a sampler" in found.missing[0]


def test_a_graph_that_goes_round_everywhere():
    """Two samplers that name one another by all four of their parts: followed naively, 4^50 ways."""
    parts = ("noise", "guider", "sampler", "sigmas")
    nodes = {
        "1": node("SamplerCustomAdvanced", steps=5, **{each: ["2", 0] for each in parts}),
        "2": node("SamplerCustomAdvanced", noise_seed=7, **{each: ["1", 0] for each in parts}),
        "3": node("SaveImage", images=["1", 0]),
    }
    request = read(nodes).request
    assert request is not None
    assert (request.steps, request.seed) == (5, 7)


def test_words_joined_to_themselves_again_and_again():
    """Forty times the same text twice: 2^40 texts, were each followed."""
    joined = {
        str(number): node(
            "ConditioningCombine", conditioning_1=[str(number + 1), 0], conditioning_2=[str(number + 1), 0]
        )
        for number in range(100, 140)
    }
    ends = {"140": node("CLIPTextEncode", text="a wolf", clip=["4", 1]), "3": sampler(positive=["100", 0])}
    found = read({**default(), **joined, **ends})
    assert found.prompt.startswith("a wolf AND a wolf AND ")
    assert "prompt" in found.unread  # far longer than a prompt may be
