"""The web UI's text into a Request, checked against sd-parsers for what that reads too."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.images.foreign.a1111 import read_parameters, split_schedule
from fromnoise.images.foreign.names import A1111_SAMPLERS, A1111_SCHEDULES
from fromnoise.images.parameters import parse_parameters
from fromnoise.images.settings import Settings
from fromnoise.request import LIKE, SAMPLERS, SCHEDULES, AdapterHash, Hires, Request


def read(text: str) -> Settings:
    return read_parameters(parse_parameters(text))


def request(line: str, words: str = "a wolf"):
    found = read(f"{words}\n{line}")
    assert found.request is not None
    return found.request


def test_all_that_it_says():
    found = read(
        "a (red:1.2) wolf, <lora:fur v2:0.8>\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 965400086, Size: 512x768, "
        "Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Clip skip: 2, "
        'Lora hashes: "fur v2: 0123456789ab", Version: v1.10.1'
    )
    drawn = found.request
    assert drawn is not None
    assert found.tool == "AUTOMATIC1111"
    assert (drawn.prompt, drawn.negative) == ("a (red:1.2) wolf, <lora:fur v2:0.8>", "blurry")
    assert (drawn.steps, drawn.guidance, drawn.seed, drawn.size) == (20, 7.5, 965400086, (512, 768))
    assert (drawn.sampler, drawn.schedule, drawn.clip_skip) == ("dpmpp-2m", "karras", 2)
    assert (drawn.model, drawn.model_hash, drawn.weighting) == ("v1-5-pruned-emaonly", "6ce0161689", "a1111")
    assert found.missing == ("the LoRA 'fur v2' at 0.8",)
    assert found.unread == {}
    assert not found.complete
    assert drawn.like == ("a1111" if "a1111" in LIKE else LIKE[0])


@pytest.mark.parametrize(
    ("said", "sampler", "schedule"),
    [
        ("Sampler: DPM++ 2M Karras", "dpmpp-2m", "karras"),
        ("Sampler: DPM++ 2M SDE Exponential", "dpmpp-2m-sde", "exponential"),
        ("Sampler: DPM++ 2M", "dpmpp-2m", "normal"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpmpp-2m", "normal"),
        ("Sampler: Euler, Schedule type: Uniform", "euler", "normal"),
        ("Sampler: Euler, Schedule type: SGM Uniform", "euler", "sgm-uniform"),
        ("Sampler: Euler SGMUniform", "euler", "sgm-uniform"),
        ("Sampler: Euler a", "euler-a", "normal"),
        ("Sampler: k_euler_ancestral", "euler-a", "normal"),
        ("Sampler: euler a", "euler-a", "normal"),
        ("Sampler: DDIM", "ddim", "ddim-uniform"),
        ("Sampler: DDIM, Schedule type: Karras", "ddim", "karras"),
        ("Sampler: PLMS", "plms", "ddim-uniform"),
        ("Sampler: DPM2 a Karras", "dpm2-a", "karras"),
    ],
)
def test_samplers_and_schedules(said: str, sampler: str, schedule: str):
    drawn = request(f"Steps: 20, {said}, CFG scale: 7, Seed: 1")
    assert (drawn.sampler, drawn.schedule) == (sampler, schedule)


def test_an_unknown_sampler_is_said():
    found = read("a wolf\nSteps: 20, Sampler: Magic Karras, CFG scale: 7, Seed: 1")
    assert found.request is not None
    assert (found.request.sampler, found.request.schedule) == (None, "karras")
    assert found.unread == {"Sampler": "Magic Karras (no such sampler here)"}


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_every_sampler_and_schedule_we_have_comes_back(sampler: str):
    for label in set(A1111_SCHEDULES.values()) & set(SCHEDULES.values()):
        drawn = request(f"Steps: 20, Sampler: {sampler}, Schedule type: {label}, CFG scale: 7, Seed: 1")
        assert SAMPLERS[drawn.sampler or ""] == sampler
        assert SCHEDULES[drawn.schedule or ""] == label


def test_combined_names_are_split_at_the_longest():
    assert split_schedule("Euler SGM Uniform") == ("Euler", "sgm uniform")
    assert split_schedule("DDIM") == ("DDIM", None)
    assert set(A1111_SAMPLERS.values()) - set(SAMPLERS.values()) == {"DPM++ 2M SDE Heun"}


HIRES = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x768, Denoising strength: 0.7, Version: v1.10.1, "


def test_hires_fix():
    found = read(f"a wolf\n{HIRES}Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent (nearest-exact)")
    assert found.complete
    assert found.request is not None
    assert found.request.hires == Hires(2.0, "latent-nearest-exact", 0.7, 10)
    assert (found.request.size, found.request.strength) == ((512, 768), Request.strength)


def test_hires_steps_are_the_first_passs_where_none_are_said():
    assert request(f"{HIRES}Hires upscale: 1.5, Hires upscaler: Latent").hires == Hires(1.5, "latent", 0.7, 20)
    assert request(f"{HIRES}Hires steps: 0, Hires upscale: 1.5, Hires upscaler: Lanczos").hires == Hires(
        1.5, "lanczos", 0.7, 20
    )


@pytest.mark.parametrize("size", ["1024x1536", "1024x0", "0x1536"])
def test_hires_resize(size: str):
    assert request(f"{HIRES}Hires resize: {size}, Hires upscaler: Latent").hires == Hires(2.0, "latent", 0.7, 20)


def test_hires_that_is_not_ours_to_follow():
    found = read(f"a\n{HIRES}Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+, Hires prompt: a fox, Hires sampler: DDIM")
    assert found.request is not None
    assert found.request.hires == Hires(2.0, "lanczos", 0.7, 20)
    assert found.unread == {
        "Hires upscaler": "R-ESRGAN 4x+ (no such upscaler here; Lanczos enlarges instead)",
        "Hires prompt": "a fox",
        "Hires sampler": "DDIM",
    }
    for odd in ("Hires upscale: 99", "Hires upscale: x", "Hires resize: 1024x1024", "First pass size: 256x256"):
        found = read(f"a\n{HIRES}{odd}, Hires upscaler: Latent")
        assert found.request is not None
        assert found.request.hires is None
        assert "Hires fix" in found.unread


def test_hashes_of_adapters():
    found = read(
        "a <lora:fur:0.8> ink\nSteps: 20, Sampler: Euler, Seed: 1, "
        'Lora hashes: "fur: 0123456789ab, snow: 111111111111", TI hashes: "ink: ba9876543210, ink: ba9876543210"'
    )
    assert found.request is not None
    assert found.request.hashes == (
        AdapterHash("lora", "fur", "0123456789ab"),
        AdapterHash("lora", "snow", "111111111111"),
        AdapterHash("embedding", "ink", "ba9876543210"),
        AdapterHash("embedding", "ink", "ba9876543210"),
    )
    assert found.missing == ("the LoRA 'fur' at 0.8", "the LoRA 'snow'", "the embedding 'ink'")


def test_image_to_image_needs_its_picture():
    found = read(
        "a wolf\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Denoising strength: 0.55, Mask blur: 4, "
        'Inpaint area: Only masked, Init image hash: 123, TI hashes: "bad-hands: 1, one two: 2", VAE: ft-mse'
    )
    assert found.request is not None
    assert found.request.strength == 0.55
    assert found.missing == (
        "the picture that it started from",
        "the mask",
        "the embedding 'bad-hands'",
        "the embedding 'one two'",
        "the VAE 'ft-mse'",
    )


def test_what_has_no_counterpart_is_kept():
    found = read(
        "a wolf\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: -1, Size: 4x4, ENSD: 31337, Eta: 0.67, RNG: CPU, "
        "Variation seed: 3, Clip skip: twenty, Emphasis: No norm, Version: v1.10.1"
    )
    assert found.request is not None
    assert (found.request.seed, found.request.size, found.request.clip_skip) == (None, None, None)
    assert set(found.unread) == {
        *("Seed", "Size", "ENSD", "Eta", "RNG", "Clip skip", "Emphasis"),
    }
    assert "from 0" in found.unread["Seed"]


@pytest.mark.parametrize(
    ("more", "tool", "weighting"),
    [
        ("Version: v1.10.1", "AUTOMATIC1111", "a1111"),
        ("Version: f2.0.1v1.10.1-previous-665-gae278f79", "Forge", "a1111"),
        ("App: SD.Next, Version: 8a9d1bf", "SD.Next", "comfyui"),
        ("App: SD.Next, Version: 8a9d1bf, Parser: a1111", "SD.Next", "a1111"),
        ("Backend: Diffusers, Pipeline: StableDiffusionPipeline", "SD.Next", "comfyui"),
        ("Version: ComfyUI", "ComfyUI", "comfyui"),
        ("Emphasis: None", "AUTOMATIC1111", "none"),
    ],
)
def test_who_wrote_it(more: str, tool: str, weighting: str):
    found = read(f"a wolf\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, {more}")
    assert found.request is not None
    assert (found.tool, found.request.weighting) == (tool, weighting)
    assert found.complete


def test_sd_next_leaves_schedules_to_the_model():
    line = "Steps: 20, Sampler: KDPM2 a, CFG scale: 7, Seed: 1, App: SD.Next"
    assert (request(line).sampler, request(line).schedule) == ("dpm2-a", None)
    assert request(f"{line}, Sampler sigma: karras").schedule == "karras"
    assert request(f"{line}, Sampler spacing: trailing").schedule == "trailing"


@pytest.mark.parametrize("said", ["CFG interval: 0.2", "CFG interval: 0.8-0.2", "CFG interval: 1e-3-1", "APG: 1/2"])
def test_our_own_keys_said_wrongly(said: str):
    found = read(f"a wolf\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, {said}")
    assert found.request is not None
    assert list(found.unread) == [said.split(":")[0]]


def test_words_alone():
    found = read("a wolf\nNegative prompt: a sheep")
    assert found.request is not None
    assert (found.request.prompt, found.request.negative) == ("a wolf", "a sheep")
    assert found.request.steps is None


simple = st.text(st.characters(categories=["L"], max_codepoint=0x2FF), min_size=1, max_size=20)


@given(
    prompt=simple,
    negative=simple,
    seed=st.integers(0, 2**40),
    steps=st.integers(1, 99),
    guidance=st.integers(1, 60).map(lambda half: half / 2),
    sampler=st.sampled_from(sorted(SAMPLERS.values())),
)
@settings(max_examples=60, deadline=None)
def test_same_as_sd_parsers(prompt: str, negative: str, seed: int, steps: int, guidance: float, sampler: str):
    parser = pytest.importorskip("sd_parsers.parsers").AUTOMATIC1111Parser
    text = (
        f"{prompt}\nNegative prompt: {negative}\nSteps: {steps}, Sampler: {sampler}, Schedule type: Karras, "
        f"CFG scale: {guidance:g}, Seed: {seed}, Model: abc"
    )
    (theirs,) = parser().parse({"parameters": text}).samplers
    mine = read(text).request
    assert mine is not None
    assert [each.value for each in theirs.prompts] == [mine.prompt]
    assert [each.value for each in theirs.negative_prompts] == [mine.negative]
    assert theirs.name == SAMPLERS[mine.sampler or ""]
    assert theirs.model.name == mine.model
    said = {key: theirs.parameters[key] for key in ("seed", "steps", "cfg_scale", "scheduler")}
    assert said == {
        "seed": str(mine.seed),
        "steps": str(mine.steps),
        "cfg_scale": f"{mine.guidance:g}",
        "scheduler": SCHEDULES[mine.schedule or ""],
    }


keys = st.sampled_from(
    [
        "Steps",
        "Sampler",
        "Seed",
        "Size",
        "CFG scale",
        "Clip skip",
        "Model",
        "Hires upscale",
        "Hires resize",
        "Hires steps",
        "Hires upscaler",
        "Denoising strength",
        "Lora hashes",
        "First steps",
        "First CFG scale",
        "APG",
        "CFG interval",
        "RNG",
    ]
)


@given(st.text(max_size=60), st.dictionaries(keys, st.text(max_size=20), min_size=3))
@settings(max_examples=120, deadline=None)
def test_any_settings_are_taken(words: str, pairs: dict[str, str]):
    found = read(f"{words}\n" + ", ".join(f"{key}: {value}" for key, value in pairs.items()))
    assert found.request is not None


def test_many_tags_that_are_not_closed():
    started = time.process_time()
    read_parameters(parse_parameters("<lora:" * 50_000 + "\nSteps: 3, Seed: 1"))
    assert time.process_time() - started < 2
