"""A picture carries its request: nothing is lost, and other tools can read the text beside it."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fromnoise.images.foreign.a1111 import read_parameters
from fromnoise.images.metadata import read_settings
from fromnoise.images.opening import open_image, to_png, upright_rgb
from fromnoise.images.parameters import parse_parameters, write_parameters
from fromnoise.images.saving import FORMATS, encode
from fromnoise.request import (
    ADAPTER_KINDS,
    LIKE,
    MAX_SEED,
    SAMPLERS,
    SCHEDULES,
    UPSCALERS,
    WEIGHTINGS,
    AdapterHash,
    Begun,
    Control,
    Hires,
    Request,
)
from fromnoise.runtime.errors import UsageError
from tests.images.pictures import PICTURE, with_chunks

ALL_FORMATS = sorted(set(FORMATS.values()))

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80) | st.sampled_from(
    [
        'a "red" apple, round: yes',
        "line one\nline two",
        "🐺 wölf 狼",
        "Steps: 3, Sampler: x, CFG scale: 1",
        "Negative prompt: b",
    ]
)
passes = st.builds(
    Hires,
    scale=st.floats(1, 16),
    upscaler=st.sampled_from(list(UPSCALERS)),
    strength=st.floats(0, 1),
    steps=st.none() | st.integers(1, 1000),
    tile=st.none() | st.integers(8, 8192),
)
beginnings = st.builds(Begun, st.integers(1, 1000), words, words, st.none() | st.floats(0, 100))
hashes = st.builds(
    AdapterHash,
    st.sampled_from(ADAPTER_KINDS),
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20),
    st.text("0123456789abcdef", min_size=12, max_size=12),
)
requests = st.builds(
    Request,
    hires=st.none() | passes,
    begun=st.none() | beginnings,
    hashes=st.lists(hashes, max_size=3).map(tuple),
    prompt=words,
    negative=words,
    seed=st.integers(0, MAX_SEED - 10),
    steps=st.integers(1, 1000),
    guidance=st.floats(0, 100),
    sampler=st.sampled_from(list(SAMPLERS)),
    schedule=st.sampled_from(list(SCHEDULES)),
    size=st.tuples(st.integers(8, 8192), st.integers(8, 8192)),
    count=st.just(1),
    init=st.none() | st.just(to_png(PICTURE)),
    strength=st.floats(0, 1),
    weighting=st.sampled_from(WEIGHTINGS),
    clip_skip=st.none() | st.integers(1, 12),
    rescale=st.floats(0, 1),
    interval=st.none() | st.just((0.25, 0.5)),
    apg=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 99), st.floats(-1, 1)),
    threshold=st.none() | st.floats(0.5, 1),
    pag=st.floats(0, 100),
    controls=st.lists(st.builds(Control, words, st.just(b"png")), max_size=2).map(tuple),
    exact=st.booleans(),
    model=st.none() | words,
    model_hash=st.none() | st.text("0123456789abcdef", min_size=10, max_size=10),
)


@pytest.mark.parametrize("format", ALL_FORMATS)
@given(request_=requests)
@settings(max_examples=40, deadline=None)
def test_every_request_comes_back(format: str, request_: Request):
    found = read_settings(open_image(encode(PICTURE, format, request_)))
    assert found is not None
    assert found.request == request_
    assert found.tool == "fromnoise"
    assert (found.prompt, found.negative) == (request_.prompt, request_.negative)


@given(request_=requests)
@settings(max_examples=200, deadline=None)
def test_json_round_trip(request_: Request):
    assert Request.from_json(request_.to_json()) == request_


plain_lines = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=60).map(str.strip)


@given(
    prompt=st.lists(plain_lines, min_size=1, max_size=3).map("\n".join).map(str.strip),
    negative=st.lists(plain_lines, max_size=3).map("\n".join).map(str.strip),
    request_=requests,
)
@settings(max_examples=80, deadline=None)
def test_the_text_says_the_same(prompt: str, negative: str, request_: Request):
    if "Negative prompt:" in prompt + negative:
        return
    found = parse_parameters(write_parameters(request_.with_(prompt=prompt, negative=negative)))
    lines = "\n".join(line.strip() for line in prompt.split("\n"))
    assert found.prompt == lines
    assert found.negative == "\n".join(line.strip() for line in negative.split("\n"))
    assert int(found.settings["Seed"]) == request_.seed
    assert int(found.settings["Steps"]) == request_.steps
    assert found.settings["Sampler"] == SAMPLERS[request_.sampler]
    assert found.settings["Schedule type"] == SCHEDULES[request_.schedule]
    assert found.settings["Size"] == "{}x{}".format(*request_.size or ())
    assert found.settings.get("Model", "").strip() == (request_.model or "").strip()
    again = request_.init is not None or request_.hires is not None
    assert ("Denoising strength" in found.settings) == again


def rounded(value: float | None) -> float | None:
    """As the text has it, to six digits."""
    return None if value is None else float(f"{value:g}")


@given(request_=requests)
@settings(max_examples=80, deadline=None)
def test_the_text_alone_gives_passes_and_hashes_back(request_: Request):
    request_ = request_.with_(init=None, prompt="a", negative="b")
    found = read_parameters(parse_parameters(write_parameters(request_))).request
    assert found is not None
    if request_.hires is not None:
        assert found.hires is not None
        mine = request_.hires
        assert found.hires.upscaler == mine.upscaler
        assert found.hires.scale == rounded(mine.scale)
        assert found.hires.strength == rounded(mine.strength)
        assert found.hires.steps == (mine.steps or request_.steps)
    if request_.begun is not None:
        assert found.begun is not None
        assert found.begun.steps == request_.begun.steps
        assert found.begun.prompt.split() == request_.begun.prompt.split()
        assert found.begun.guidance == rounded(request_.begun.guidance)
    kinds = ("lora", "embedding")
    assert found.hashes == tuple(each for kind in kinds for each in request_.hashes if each.kind == kind)


def test_passes_and_hashes_to_the_letter():
    request = Request(
        prompt="a",
        seed=0,
        sampler="euler",
        steps=20,
        size=(512, 512),
        hires=Hires(1.5, "latent-bicubic", 0.55, 10),
        begun=Begun(4, "a wolf, red", guidance=7.0),
        hashes=(
            AdapterHash("lora", "fur", "0123456789ab"),
            AdapterHash("embedding", "ink", "ba9876543210"),
            AdapterHash("lora", "snow", "111111111111"),
        ),
    )
    assert write_parameters(request) == (
        "a\nSteps: 20, Sampler: Euler, Seed: 0, Size: 512x512, Denoising strength: 0.55, RNG: CPU, "
        "Hires upscale: 1.5, Hires steps: 10, Hires upscaler: Latent (bicubic), "
        'Lora hashes: "fur: 0123456789ab, snow: 111111111111", TI hashes: "ink: ba9876543210", '
        'First steps: 4, First prompt: "a wolf, red", First CFG scale: 7, Version: fromnoise'
    )
    enlarged = request.with_(init=to_png(PICTURE), begun=None, hashes=(), hires=Hires(2, "lanczos", 0.3, 6, tile=128))
    assert write_parameters(enlarged) == (
        "a\nSteps: 20, Sampler: Euler, Seed: 0, Size: 512x512, Denoising strength: 0.3, RNG: CPU, "
        "SD upscale overlap: 32, SD upscale upscaler: Lanczos, Upscale by: 2, Version: fromnoise"
    )


def test_the_text_to_the_letter():
    request = Request(
        prompt="a red apple",
        negative="blurry",
        seed=0,
        sampler="euler-a",
        schedule="karras",
        guidance=7.0,
        steps=20,
        size=(512, 512),
        model="a, b",
        model_hash="0123456789",
    )
    assert write_parameters(request) == (
        "a red apple\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 0, Size: 512x512, "
        'Model hash: 0123456789, Model: "a, b", RNG: CPU, Version: fromnoise'
    )


def test_a_web_ui_text():
    text = (
        "photo of a wolf, (moon:1.2)\nsecond line\nNegative prompt: blurry, text\nmore\n"
        "Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 123, Size: 512x768, Model hash: abc, Model: sd, "
        'Lora hashes: "one: 1a, two: 2b", Version: v1.10.1'
    )
    found = parse_parameters(text)
    assert found.prompt == "photo of a wolf, (moon:1.2)\nsecond line"
    assert found.negative == "blurry, text\nmore"
    assert found.settings["Lora hashes"] == "one: 1a, two: 2b"
    assert found.settings["Version"] == "v1.10.1"
    assert {key: found.settings[key] for key in ("Clip skip", "RNG", "Schedule type")} == {
        "Clip skip": "1",
        "RNG": "GPU",
        "Schedule type": "Automatic",
    }


def test_a_prompt_without_settings():
    found = parse_parameters("a wolf\nsize: big, colour: grey")
    assert found.prompt == "a wolf\nsize: big, colour: grey"
    assert found.settings == {}


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_is_taken(text: str):
    parse_parameters(text)


def test_long_lines_take_no_longer():
    parse_parameters("word " * 50_000)
    parse_parameters("a: 1, b: 2, c: 3\n" + 'key: "' * 2_000)


@pytest.mark.parametrize("format", ALL_FORMATS)
def test_sd_parsers_reads_ours(format: str, tmp_path):
    sd_parsers = pytest.importorskip("sd_parsers")
    how = {"sampler": "dpmpp-2m", "schedule": "model", "guidance": 4.0, "steps": 9, "model": "fromnoise"}
    request = Request("a red apple, noto style", "blurry", seed=5, size=(128, 128), **how)
    path = tmp_path / f"picture.{format.lower()}"
    path.write_bytes(encode(PICTURE, format, request))
    theirs = sd_parsers.ParserManager().parse(path)
    assert theirs is not None
    assert theirs.generator.value == "AUTOMATIC1111"
    (sampler,) = theirs.samplers
    assert sampler.name == "DPM++ 2M"
    assert [each.value for each in sampler.prompts] == ["a red apple, noto style"]
    assert [each.value for each in sampler.negative_prompts] == ["blurry"]
    assert sampler.parameters == {"scheduler": "Automatic", "cfg_scale": "4", "seed": "5", "steps": "9"}
    assert sampler.model is not None
    assert sampler.model.name == "fromnoise"


simple = st.text(st.characters(categories=["L"], max_codepoint=0x2FF), min_size=1, max_size=20)


@given(prompt=simple, negative=simple, model=simple, seed=st.integers(0, 2**40), steps=st.integers(1, 99))
@settings(max_examples=60, deadline=None)
def test_same_as_sd_parsers(prompt: str, negative: str, model: str, seed: int, steps: int):
    parser = pytest.importorskip("sd_parsers.parsers").AUTOMATIC1111Parser
    last = f"Steps: {steps}, Sampler: Euler, CFG scale: 7, Seed: {seed}, Model: {model}"
    text = f"{prompt}\nNegative prompt: {negative}\n{last}"
    (theirs,) = parser().parse({"parameters": text}).samplers
    mine = parse_parameters(text)
    assert [each.value for each in theirs.prompts] == [mine.prompt]
    assert [each.value for each in theirs.negative_prompts] == [mine.negative]
    assert theirs.name == mine.settings["Sampler"]
    assert theirs.model.name == mine.settings["Model"]
    assert theirs.parameters["seed"] == mine.settings["Seed"]


@pytest.mark.parametrize("order", ["be", "le"])
def test_user_comment_in_either_byte_order(order: str):
    exif = Image.Exif()
    text = "a wolf\nSteps: 9, Sampler: Euler, CFG scale: 7, Seed: 1"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(f"utf-16-{order}")
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG", exif=exif)
    found = read_settings(open_image(buffer.getvalue()))
    assert found is not None
    assert found.prompt == "a wolf"
    assert found.tool == "AUTOMATIC1111"
    assert found.request is not None
    assert (found.request.prompt, found.request.steps, found.request.seed) == ("a wolf", 9, 1)


@pytest.mark.parametrize("format", ALL_FORMATS)
def test_a_large_starting_picture_fits(format: str):
    noise = Image.effect_noise((512, 512), 80).convert("RGB")
    request = Request("a", seed=1, size=(512, 512), init=to_png(noise))
    assert len(request.to_json()) > 200_000
    found = read_settings(open_image(encode(PICTURE, format, request)))
    assert found is not None
    assert found.request == request


@pytest.mark.parametrize("format", ALL_FORMATS)
def test_a_sheet_has_words_but_no_request(format: str):
    data = encode(PICTURE, format, Request("a wolf", seed=1, size=(16, 8)), sheet="guidance=1,7; seed=0-3")
    found = read_settings(open_image(data))
    assert found is not None
    assert found.tool == "fromnoise"
    assert found.request is None
    assert found.prompt == "a wolf"
    assert found.values["Sheet"] == "guidance=1,7; seed=0-3"


@pytest.mark.parametrize("format", ALL_FORMATS)
def test_no_settings(format: str):
    buffer = io.BytesIO()
    PICTURE.save(buffer, format)
    assert read_settings(open_image(buffer.getvalue())) is None


DAMAGED = ["{", "[]", "null", "", "\ud83d", '{"colour": 1}', '{"seed": "x"}', '{"init": "!"}', '{"size": 3}']


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("beside", ["", "a wolf\nSteps: 9, Sampler: Euler, Seed: 1"])
def test_damaged_settings_are_said(text: str, beside: str):
    found = read_settings(with_chunks(fromnoise=text.encode("utf-8", "replace").decode(), parameters=beside))
    assert found is not None
    assert found.tool == "fromnoise"
    assert found.request is None
    assert found.prompt == ("a wolf" if beside else "")
    (said,) = found.missing
    assert "can't be read" in said
    assert "\n" not in said


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
@settings(max_examples=80, deadline=None)
def test_any_text_in_our_place_is_taken(text: str):
    found = read_settings(with_chunks(fromnoise=text))
    assert found is not None
    assert (found.request is None) == bool(found.missing)


@pytest.mark.parametrize("like", LIKE)
def test_our_text_alone_still_draws(like: str):
    request = Request(
        "a wolf",
        "text",
        seed=3,
        steps=9,
        guidance=4.5,
        sampler="euler-a",
        schedule="trailing",
        size=(128, 64),
        weighting="none",
        clip_skip=2,
        rescale=0.7,
        interval=(0.2, 0.8),
        apg=(0.0, 15.0, -0.5),
        threshold=0.995,
        pag=3.0,
        like=like,
        model="fromnoise",
        model_hash="0123456789",
    )
    found = read_settings(with_chunks(parameters=write_parameters(request)))
    assert found is not None
    assert found.tool == "fromnoise"
    assert found.request == request
    assert found.complete


def test_what_does_nothing_is_not_written():
    text = write_parameters(Request("a", seed=1, steps=9, sampler="euler", size=(64, 64)))
    assert text.endswith("Sampler: Euler, Seed: 1, Size: 64x64, RNG: CPU, Version: fromnoise")
    control = Control("models/canny, large", to_png(PICTURE), 0.5, 0.0, 0.75)
    text = write_parameters(Request("a", seed=1, controls=(control,), init=to_png(PICTURE), mask=to_png(PICTURE)))
    assert 'ControlNet 0: "Model: models/canny  large, Weight: 0.5, Guidance Start: 0, Guidance End: 0.75"' in text
    assert "Denoising strength: 0.6" in text
    assert "Mask blur: 2" in text


GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"steps": 9, "sampler_name": "euler", "positive": ["6", 0], "seed": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a wolf"}},
}


@pytest.mark.parametrize("names", [("prompt", 0x0110), ("workflow", 0x010F)])
def test_comfyui_in_webp(names: tuple[str, int]):
    name, tag = names
    exif = Image.Exif()
    exif[tag] = f"{name}:" + (json.dumps(GRAPH) if name == "prompt" else "{")
    buffer = io.BytesIO()
    PICTURE.save(buffer, "WEBP", exif=exif)
    found = read_settings(open_image(buffer.getvalue()))
    assert found is not None
    assert found.tool == "ComfyUI"
    assert found.prompt == ("a wolf" if name == "prompt" else "")
    assert (found.request is None) == (name == "workflow")


def test_a_camera_makes_no_prompt():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "EOS: 5D"
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG", exif=exif)
    assert read_settings(open_image(buffer.getvalue())) is None


def test_json_in_a_user_comment():
    exif = Image.Exif()
    said = {"prompt": "a wolf", "num_inference_steps": 9, "seed": 1}
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + json.dumps(said).encode()
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG", exif=exif)
    found = read_settings(open_image(buffer.getvalue()))
    assert found is not None
    assert found.request is not None
    assert (found.tool, found.request.steps) == ("diffusers", 9)


def test_ours_comes_before_theirs():
    request = Request("a wolf", seed=1)
    found = read_settings(with_chunks(prompt=json.dumps(GRAPH), parameters="a", fromnoise=request.to_json()))
    assert found is not None
    assert found.request == request


@pytest.mark.parametrize("text", ["Screenshot", "ASCII a photo", "one: 1, two: 2"])
def test_what_cameras_write_is_no_prompt(text: str):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + text.encode()
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG", exif=exif)
    assert read_settings(open_image(buffer.getvalue())) is None


@pytest.mark.parametrize("format", ALL_FORMATS)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_damage_never_escapes(format: str, data: st.DataObject):
    file = bytearray(encode(PICTURE, format, Request("a 🐺", "b", 1, size=(16, 8))))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = open_image(bytes(file))
    except UsageError:
        return
    read_settings(image)


def test_damaged_exif_is_no_settings():
    buffer = io.BytesIO()
    PICTURE.save(buffer, "WEBP", exif=b"Exif\0\0zM\0*\0\0\0\x08")
    image = open_image(buffer.getvalue())
    assert read_settings(image) is None
    assert upright_rgb(image).size == PICTURE.size


def test_settings_too_long_for_a_text_chunk():
    """Readers refuse a PNG with 64 MiB of text; the picture that a picture started from may be as long."""
    request = Request(seed=1, init=bytes(50 * 2**20))
    image = open_image(encode(PICTURE, "PNG", request))
    found = read_settings(image)
    assert found is not None
    assert found.request == request


@pytest.mark.parametrize("own", ["[" * 100_000, '{"a":' * 100_000, "{}", '{"seed": null}'])
def test_settings_that_draw_nothing(own: str):
    found = read_settings(with_chunks(parameters="a wolf\nSteps: 3", fromnoise=own))
    assert found is not None
    assert found.request is None
    assert len(found.missing) == 1
