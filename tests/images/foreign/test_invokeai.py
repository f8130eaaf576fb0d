"""InvokeAI's three ways to write, into a Request."""

import json
from typing import Any

import pytest

from fromnoise.images.foreign.invokeai import read_invokeai, split_negative
from fromnoise.images.foreign.names import INVOKEAI_SAMPLERS
from fromnoise.images.settings import Settings
from fromnoise.request import SAMPLERS

SAID = {
    "generation_mode": "txt2img",
    "positive_prompt": "a wolf",
    "negative_prompt": "blurry",
    "width": 512,
    "height": 768,
    "seed": 3,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0.0,
    "steps": 30,
    "scheduler": "dpmpp_2m_k",
    "clip_skip": 0,
    "model": {"key": "1", "hash": "blake3:2", "name": "stable-diffusion-v1-5", "base": "sd-1", "type": "main"},
    "loras": [],
    "app_version": "5.0.0",
}


def read(**chunks: Any) -> Settings:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in chunks.items()}
    found = read_invokeai({key.replace("sd_", "sd-"): value for key, value in texts.items()})
    assert found is not None
    assert found.tool == "InvokeAI"
    return found


def test_the_newest_form():
    found = read(invokeai_metadata=SAID)
    drawn = found.request
    assert drawn is not None
    assert (drawn.prompt, drawn.negative, drawn.seed, drawn.steps) == ("a wolf", "blurry", 3, 30)
    assert (drawn.guidance, drawn.size, drawn.sampler, drawn.schedule) == (7.5, (512, 768), "dpmpp-2m", "karras")
    assert (drawn.model, drawn.weighting, drawn.clip_skip) == ("stable-diffusion-v1-5", "none", None)
    assert found.complete


def test_little_of_it():
    found = read(invokeai_metadata={"positive_prompt": "a wolf", "negative_prompt": None, "seed": 3, "loras": []})
    assert (found.prompt, found.negative) == ("a wolf", "")
    assert found.values == {"seed": "3"}


def test_what_it_needs():
    more = {
        "generation_mode": "inpaint",
        "strength": 0.7,
        "clip_skip": 1,
        "cfg_rescale_multiplier": 0.5,
        "seamless_x": True,
        "hrf_enabled": False,
        "loras": [{"model": {"name": "fur"}, "weight": 0.8}, {"lora": {"model_name": "old"}}],
        "controlnets": [{"image": {}}],
        "vae": {"name": "ft-mse"},
    }
    found = read(invokeai_metadata={**SAID, **more})
    assert found.request is not None
    assert (found.request.strength, found.request.clip_skip, found.request.rescale) == (0.7, 2, 0.5)
    assert set(found.missing) == {
        "the picture that it started from",
        "the mask",
        "the LoRA 'fur' at 0.8",
        "the LoRA 'old'",
        "the pictures and models of its controlnets",
        "the autoencoder 'ft-mse'",
    }
    assert found.unread == {"seamless_x": "True"}


@pytest.mark.parametrize("prompt", ["a (red)1.3 wolf", "a (red)+ wolf", "a red++ wolf", '("a", "b").and()'])
def test_its_own_prompt_language_is_told(prompt: str):
    assert "prompt" in read(invokeai_metadata={**SAID, "positive_prompt": prompt}).unread


@pytest.mark.parametrize("prompt", ["a (red) wolf", "a well-known wolf, 1+1", "a wolf (1)"])
def test_plain_prompts_are_plain(prompt: str):
    assert read(invokeai_metadata={**SAID, "positive_prompt": prompt}).unread == {}


@pytest.mark.parametrize("name", INVOKEAI_SAMPLERS)
def test_samplers(name: str):
    found = read(invokeai_metadata={**SAID, "scheduler": name})
    assert found.request is not None
    assert found.request.schedule is None
    if INVOKEAI_SAMPLERS[name] in SAMPLERS.values():
        assert SAMPLERS[found.request.sampler or ""] == INVOKEAI_SAMPLERS[name]
    else:
        assert "scheduler" in found.unread


def test_sd_metadata():
    image = {
        "prompt": [{"prompt": "a wolf [blurry]", "weight": 1.0}],
        "steps": 50,
        "cfg_scale": 7.5,
        "threshold": 0,
        "perlin": 0.1,
        "height": 512,
        "width": 512,
        "seed": 3389870283,
        "type": "txt2img",
        "sampler": "k_lms",
    }
    said = {"model": "stable diffusion", "model_weights": "stable-diffusion-1.4", "model_hash": "c8d3", "image": image}
    found = read(sd_metadata=said)
    drawn = found.request
    assert drawn is not None
    assert (drawn.prompt, drawn.negative, drawn.seed, drawn.steps) == ("a wolf", "blurry", 3389870283, 50)
    assert (drawn.sampler, drawn.model, drawn.model_hash) == ("lms", "stable-diffusion-1.4", "c8d3")
    assert found.unread == {"perlin": "0.1"}


def test_dream():
    found = read(Dream='"a wolf, oil [text, blurry]" -s 50 -S 3389870283 -W 512 -H 768 -C 7.5 -A k_euler_a')
    drawn = found.request
    assert drawn is not None
    assert (drawn.prompt, drawn.negative, drawn.seed) == ("a wolf, oil", "text, blurry", 3389870283)
    assert (drawn.steps, drawn.size, drawn.guidance, drawn.sampler) == (50, (512, 768), 7.5, "euler-a")
    assert found.complete


def test_same_as_sd_parsers():
    """Its switches and its split of the negative prompt."""
    parser = pytest.importorskip("sd_parsers.parsers").InvokeAIParser
    text = '"a wolf, oil [blurry]" -s 50 -S 338 -W 512 -H 768 -C 7.5 -A k_euler'
    theirs = parser().parse({"Dream": text})
    mine = read(Dream=text).request
    assert mine is not None
    (sampler,) = theirs.samplers
    assert [each.value for each in sampler.prompts] == [mine.prompt]
    assert [each.value for each in sampler.negative_prompts] == [mine.negative]
    assert (sampler.parameters["steps"], sampler.parameters["seed"]) == (mine.steps, mine.seed)


def test_negatives_inside_the_prompt():
    assert split_negative("a [b] c [d, e]") == ("a c", "b, d, e")
    assert split_negative("[") == ("[", "")


@pytest.mark.parametrize(
    "chunks",
    [
        {"invokeai_metadata": "{"},
        {"invokeai_metadata": "[]"},
        {"sd_metadata": "no"},
        {"sd_metadata": "{}"},
        {"Dream": "x"},
    ],
)
def test_damage_is_said(chunks: dict[str, str]):
    found = read(**chunks)
    assert found.request is None
    assert "damaged" in found.missing[0]


def test_others_are_none_of_its():
    assert read_invokeai({"prompt": "{}", "workflow": "{}"}) is None
