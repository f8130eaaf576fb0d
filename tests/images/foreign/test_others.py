"""What scripts around diffusers write, and NovelAI."""

import json

import pytest

from fromnoise.images.foreign import read_foreign
from fromnoise.images.foreign.names import DIFFUSERS_SAMPLERS
from fromnoise.request import SAMPLERS

CALL = {
    "prompt": "a wolf",
    "negative_prompt": "blurry",
    "num_inference_steps": 30,
    "guidance_scale": 7.5,
    "seed": 3,
    "width": 512,
    "height": 768,
    "scheduler": {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
    "model_id": "stable-diffusion-v1-5",
    "output_type": "pil",
}


@pytest.mark.parametrize("place", ["parameters", "diffusers", "Comment", "metadata"])
def test_a_call_as_json(place: str):
    found = read_foreign({place: json.dumps(CALL)})
    assert found is not None
    drawn = found.request
    assert drawn is not None
    assert found.tool == "diffusers"
    assert (drawn.prompt, drawn.negative, drawn.seed, drawn.steps) == ("a wolf", "blurry", 3, 30)
    assert (drawn.guidance, drawn.size, drawn.sampler, drawn.schedule) == (7.5, (512, 768), "dpmpp-2m", "karras")
    assert (drawn.model, drawn.weighting, drawn.like) == ("stable-diffusion-v1-5", "none", "diffusers")
    assert found.complete


def test_a_call_in_chunks_of_its_own():
    found = read_foreign({"prompt": "a wolf", "num_inference_steps": "30", "guidance_scale": "7.5", "seed": "3"})
    assert found is not None
    assert found.request is not None
    assert (found.request.steps, found.request.guidance, found.request.seed) == (30, 7.5, 3)


def test_layers_left_out_are_counted_from_one_less():
    found = read_foreign({"parameters": json.dumps({**CALL, "clip_skip": 1, "strength": 0.5, "eta": 0.3})})
    assert found is not None
    assert found.request is not None
    assert (found.request.clip_skip, found.request.strength) == (2, 0.5)
    assert found.missing == ("the picture that it started from",)
    assert found.unread == {"eta": "0.3"}


@pytest.mark.parametrize("name", DIFFUSERS_SAMPLERS)
def test_scheduler_classes(name: str):
    diffusers = pytest.importorskip("diffusers")
    assert name in dir(diffusers)
    found = read_foreign({"parameters": json.dumps({**CALL, "scheduler": name})})
    assert found is not None
    assert found.request is not None
    if DIFFUSERS_SAMPLERS[name] in SAMPLERS.values():
        assert SAMPLERS[found.request.sampler or ""] == DIFFUSERS_SAMPLERS[name]
    else:
        assert "scheduler" in found.unread


def test_fooocus():
    said = {
        "prompt": "a wolf",
        "steps": 30,
        "guidance_scale": 4.0,
        "seed": "3",
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "clip_skip": 2,
        "base_model": "juggernaut",
        "metadata_scheme": "fooocus",
        "styles": "['Fooocus V2']",
    }
    found = read_foreign({"parameters": json.dumps(said)})
    assert found is not None
    assert found.request is not None
    assert (found.tool, found.request.sampler, found.request.schedule) == ("Fooocus", "dpmpp-2m-sde", "karras")
    assert (found.request.seed, found.request.clip_skip, found.request.model) == (3, 2, "juggernaut")
    assert set(found.unread) == {"metadata_scheme", "styles"}


def test_novelai():
    said = {
        "steps": 28,
        "sampler": "k_euler_ancestral",
        "seed": 3,
        "scale": 11.0,
        "uc": "blurry",
        "noise_schedule": "karras",
        "width": 640,
        "height": 640,
    }
    texts = {"Software": "NovelAI", "Description": "a wolf", "Source": "Stable Diffusion 81274D13"}
    found = read_foreign({**texts, "Comment": json.dumps(said)})
    assert found is not None
    drawn = found.request
    assert drawn is not None
    assert found.tool == "NovelAI"
    assert (drawn.prompt, drawn.negative, drawn.seed, drawn.steps) == ("a wolf", "blurry", 3, 28)
    assert (drawn.guidance, drawn.sampler, drawn.schedule, drawn.size) == (11.0, "euler-a", "karras", (640, 640))
    assert "81274D13" in found.missing[0]
    broken = read_foreign({**texts, "Comment": "{"})
    assert broken is not None
    assert broken.request is None
    assert "damaged" in broken.missing[0]


@pytest.mark.parametrize("texts", [{}, {"Software": "gimp"}, {"Comment": "a holiday"}, {"metadata": '{"prompt": 1}'}])
def test_nothing_of_the_kind(texts: dict[str, str]):
    assert read_foreign(texts) is None
