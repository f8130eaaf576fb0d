"""What a file is, recognised from its weights alone at the published sizes; and what is refused."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fromnoise.checkpoints import open_checkpoint
from fromnoise.checkpoints.building import build
from fromnoise.checkpoints.identity import DIGEST, OWN
from fromnoise.checkpoints.model_folder import write_folder
from fromnoise.checkpoints.recognise import V_SIGNS
from fromnoise.checkpoints.single_file import write_file
from fromnoise.checkpoints.stored import Stored
from fromnoise.models.published import FAMILIES
from fromnoise.runtime.errors import FromnoiseError, UsageError
from tests.checkpoints.samples import expected, fits, published_shapes, renamed, same, shape_only, small, sparse_file

UNET, CLIP = "model.diffusion_model.", "cond_stage_model.transformer."

shapes = cache(lambda name: published_shapes(FAMILIES[name]))


@pytest.mark.parametrize(
    ("family", "file", "found"),
    [
        ("sd1", "a.safetensors", "sd1"),
        ("sd1-inpaint", "a.safetensors", "sd1-inpaint"),
        ("lcm", "a.safetensors", "lcm"),
        ("sd2-inpaint", "a.safetensors", "sd2-inpaint"),
        ("sdxl", "a.safetensors", "sdxl"),
        ("sdxl", "sd_xl_turbo_1.0_fp16.safetensors", "sdxl-turbo"),
        ("controlnet-sd1", "a.safetensors", "controlnet-sd1"),
        ("controlnet-sd2", "a.safetensors", "controlnet-sd2"),
        ("controlnet-sdxl", "a.safetensors", "controlnet-sdxl"),
        ("taesd", "a.safetensors", "taesd"),
    ],
)
def test_a_family_is_recognised_and_every_key_finds_its_place(tmp_path: Path, family: str, file: str, found: str):
    checkpoint = open_checkpoint(sparse_file(tmp_path / file, shapes(family)))
    assert checkpoint.family == found
    assert checkpoint.parts.keys() == FAMILIES[family].parts.keys()
    assert checkpoint.dtype == torch.float16
    assert not checkpoint.extras
    assert all(map(fits, checkpoint.parts.values()))


@pytest.mark.parametrize(
    ("deviation", "file", "found", "prediction"),
    [
        (0.12, "a.safetensors", "sd2", "v_prediction"),
        (0.06, "a.safetensors", "sd2-base", "epsilon"),
        (0.06, "sd_turbo.safetensors", "sd-turbo", "epsilon"),
    ],
)
def test_sd2_is_told_apart_by_one_bias(tmp_path: Path, deviation: float, file: str, found: str, prediction: str):
    checkpoint = open_checkpoint(_with_bias(tmp_path / file, shapes("sd2"), deviation))
    assert (checkpoint.family, checkpoint.scheduler["prediction_type"]) == (found, prediction)
    assert open_checkpoint(tmp_path / file, prediction="epsilon").scheduler["prediction_type"] == "epsilon"
    assert open_checkpoint(tmp_path / file, prediction="v_prediction").family == "sd2" or "turbo" in file
    assert open_checkpoint(tmp_path / file, family="sd2").family == "sd2"


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"modelspec.prediction_type": "v"}, "sd2"),
        ({"modelspec.prediction_type": "epsilon"}, "sd2-base"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "sd2"),
    ],
)
def test_metadata_goes_before_guesses(tmp_path: Path, metadata: dict[str, str], found: str):
    assert open_checkpoint(sparse_file(tmp_path / "a.safetensors", shapes("sd2"), metadata)).family == found


def test_sdxl_marks_of_v_prediction_and_zero_snr(tmp_path: Path):
    marks = {"v_pred": shape_only(0), "ztsnr": shape_only(0)}
    checkpoint = open_checkpoint(sparse_file(tmp_path / "a.safetensors", {**shapes("sdxl"), **marks}))
    assert checkpoint.family == "sdxl"
    assert checkpoint.scheduler["prediction_type"] == "v_prediction"
    assert checkpoint.scheduler["rescale_betas_zero_snr"] is True
    assert set(checkpoint.extras) == set(marks)


def test_sdxl_for_inpainting_gets_its_channels_from_the_file(tmp_path: Path):
    wider = {**shapes("sdxl"), UNET + "input_blocks.0.0.weight": shape_only(320, 9, 3, 3)}
    checkpoint = open_checkpoint(sparse_file(tmp_path / "a.safetensors", wider))
    assert (checkpoint.family, checkpoint.parts["unet"].config["in_channels"]) == ("sdxl", 9)


def test_declared_extras_are_set_aside(tmp_path: Path):
    extras = {
        CLIP + "text_model.embeddings.position_ids": shape_only(1, 77, dtype=torch.int64),
        "model_ema.decay": shape_only(dtype=torch.float32),
        "model_ema.diffusion_modelinput_blocks00weight": shape_only(320, 4, 3, 3),
        "betas": shape_only(1000),
        "alphas_cumprod": shape_only(1000),
        "first_stage_model.loss.logvar": shape_only(),
    }
    checkpoint = open_checkpoint(sparse_file(tmp_path / "a.safetensors", {**shapes("sd1"), **extras}))
    assert set(checkpoint.extras) == set(extras)
    assert all(map(fits, checkpoint.parts.values()))


def test_sd2_leaves_out_its_last_layer(tmp_path: Path):
    prefix = "cond_stage_model.model."
    last = {key.replace(".22.", ".23."): each for key, each in shapes("sd2").items() if ".resblocks.22." in key}
    extras = {**last, prefix + "logit_scale": shape_only(), prefix + "text_projection": shape_only(1024, 1024)}
    checkpoint = open_checkpoint(sparse_file(tmp_path / "a.safetensors", {**shapes("sd2"), **extras}))
    assert set(checkpoint.extras) == set(extras)
    assert len(last) == 12
    assert fits(checkpoint.parts["text_encoder"])


@pytest.mark.parametrize(
    ("family", "part", "respell"),
    [
        ("sd1", "text_encoder", lambda key: key.replace(CLIP + "text_model.", CLIP)),
        (
            "sdxl",
            "text_encoder",
            lambda key: key.replace("embedders.0.transformer.text_model.", "embedders.0.transformer."),
        ),
        ("sd2", "text_encoder", lambda key: key.replace("cond_stage_model.", "conditioner.embedders.0.")),
        ("sd1", "vae", lambda key: key.replace("first_stage_model.", "vae.")),
        (
            "sd1",
            "vae",
            lambda key: key.replace("attn_1.q.", "attn_1.query.").replace("attn_1.proj_out.", "attn_1.proj_attn."),
        ),
        ("lcm", "unet", lambda key: key.replace("time_embedding.cond_proj", "time_embed.cond_proj")),
    ],
)
def test_historical_spellings(tmp_path: Path, family: str, part: str, respell):
    spelt = renamed(shapes(family), respell)
    assert spelt.keys() != shapes(family).keys()
    found = open_checkpoint(sparse_file(tmp_path / "a.safetensors", spelt)).parts[part]
    assert fits(found)


@pytest.mark.parametrize(
    ("family", "part", "prefix"),
    [
        ("sd1", "unet", UNET),
        ("sdxl", "unet", UNET),
        ("sd1", "vae", "first_stage_model."),
        ("controlnet-sd1", "controlnet", "control_model."),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_lone_part(tmp_path: Path, family: str, part: str, prefix: str, bare: bool):
    alone = {key: each for key, each in shapes(family).items() if key.startswith(prefix)}
    if bare:
        alone = renamed(alone, lambda key: key.removeprefix(prefix))
    checkpoint = open_checkpoint(sparse_file(tmp_path / "a.safetensors", alone))
    assert list(checkpoint.parts) == [part]
    assert checkpoint.is_lone
    assert fits(checkpoint.parts[part])


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_lone_part_under_diffusers_keys(tmp_path: Path, part: str):
    keys = {key: shape_only(*each.shape) for key, each in expected(FAMILIES["sdxl"].parts[part]).items()}
    found = next(iter(open_checkpoint(sparse_file(tmp_path / "a.safetensors", keys)).parts.values()))
    assert fits(found)


def test_a_lone_autoencoder_leaves_open_what_its_weights_do_not_show(tmp_path: Path):
    alone = {key: each for key, each in shapes("sd1").items() if key.startswith("first_stage_model.")}
    part = open_checkpoint(sparse_file(tmp_path / "a.safetensors", alone)).parts["vae"]
    assert "scaling_factor" not in part.config
    own = open_checkpoint(sparse_file(tmp_path / "b.safetensors", shapes("sdxl"))).parts["vae"]
    assert part.instead_of(own).config["scaling_factor"] == 0.13025
    tiny = open_checkpoint(sparse_file(tmp_path / "c.safetensors", shapes("taesd"))).parts["vae"]
    assert tiny.instead_of(own).config == tiny.config


@pytest.mark.parametrize("first", ["encoder", "decoder"])
def test_the_tiny_autoencoder_as_its_author_publishes_it(tmp_path: Path, first: str):
    for half, shift in (("encoder", 0), ("decoder", 1)):
        keys = {key.removeprefix(f"{half}.layers."): each for key, each in shapes("taesd").items() if half in key}
        keys = renamed(keys, lambda key, shift=shift: f"{int(key.split('.')[0]) + shift}.{key.partition('.')[2]}")
        sparse_file(tmp_path / f"taesd_{half}.safetensors", keys)
    checkpoint = open_checkpoint(tmp_path / f"taesd_{first}.safetensors")
    assert checkpoint.family == "taesd"
    assert fits(checkpoint.parts["vae"])
    other = {"encoder": "decoder", "decoder": "encoder"}[first]
    (tmp_path / f"taesd_{other}.safetensors").unlink()
    with pytest.raises(FromnoiseError, match=f"put the {other}'s file beside it"):
        open_checkpoint(tmp_path / f"taesd_{first}.safetensors")


def test_what_is_no_part_of_stable_diffusion(tmp_path: Path):
    path = sparse_file(tmp_path / "a.safetensors", {"double_blocks.0.img_attn.norm.key_norm.scale": shape_only(8)})
    with pytest.raises(FromnoiseError, match=r"a.safetensors is no Stable Diffusion .* double_blocks.0"):
        open_checkpoint(path)


@pytest.mark.parametrize("key", ["lora_unet_a.lora_up.weight", "unet.a.lora_A.weight", "unet.a.lora.up.weight"])
def test_an_adapter_is_said_to_be_one(tmp_path: Path, key: str):
    path = sparse_file(tmp_path / "a.safetensors", {key: shape_only(8, 2)})
    with pytest.raises(FromnoiseError, match=r"a\.safetensors is an adapter, not a checkpoint; .* --lora"):
        open_checkpoint(path)


def with_words_of(width: int) -> dict[str, Stored]:
    """SDXL's keys with another width of cross-attention."""
    return {
        key: shape_only(*each.shape[:1], width) if "attn2.to_k" in key else each for key, each in shapes("sdxl").items()
    }


def test_a_family_that_is_not_known(tmp_path: Path):
    with pytest.raises(FromnoiseError, match=r"cross_attention_dim 1536.*no family that is known"):
        open_checkpoint(sparse_file(tmp_path / "a.safetensors", with_words_of(1536)))


def test_the_refiner_is_called_by_its_name(tmp_path: Path):
    with pytest.raises(FromnoiseError, match=r"a.safetensors is SDXL's refiner, .* draw with the base model"):
        open_checkpoint(sparse_file(tmp_path / "a.safetensors", with_words_of(1280)))
    checkpoint = small("sdxl")
    write_folder(tmp_path / "refiner", checkpoint)
    config = tmp_path / "refiner" / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "cross_attention_dim": 1280}))
    with pytest.raises(FromnoiseError, match=r"refiner is SDXL's refiner"):
        open_checkpoint(tmp_path / "refiner")


def test_undeclared_left_overs_are_named(tmp_path: Path):
    odd = {"model.diffusion_model.motion_modules.0.weight": shape_only(3), "control.bias": shape_only(3)}
    with pytest.raises(FromnoiseError, match=r"Stable Diffusion 1.x, which has no place for 2 keys \(model.diff"):
        open_checkpoint(sparse_file(tmp_path / "a.safetensors", {**shapes("sd1"), **odd}))


def test_missing_and_misshapen_keys_are_named(tmp_path: Path):
    keys = dict(shapes("sd1"))
    del keys[UNET + "input_blocks.1.0.in_layers.0.weight"]
    keys[UNET + "out.2.bias"] = shape_only(5)
    keys[UNET + "out.0.bias"] = shape_only(320, dtype=torch.int16)
    part = open_checkpoint(sparse_file(tmp_path / "a.safetensors", keys)).parts["unet"]
    with pytest.raises(FromnoiseError) as caught:
        part.load_into(build(part.config))
    for words in (
        "a.safetensors is no unet of a sd1 checkpoint",
        "1 missing (down_blocks.0.resnets.0.norm1.weight)",
        "1 misshapen (conv_out.bias [5] instead of [4])",
        "1 of a wrong type (conv_norm_out.bias torch.int16)",
    ):
        assert words in str(caught.value)


def test_two_spellings_of_one_key_are_an_error(tmp_path: Path):
    key = "first_stage_model.encoder.mid.attn_1.{}.weight"
    keys = {**shapes("sd1"), key.format("query"): shapes("sd1")[key.format("q")]}
    with pytest.raises(FromnoiseError, match=r"no place for 1 keys \(first_stage_model.encoder.mid.attn_1.query"):
        open_checkpoint(sparse_file(tmp_path / "a.safetensors", keys))


def test_the_wrong_family_asked_for(tmp_path: Path):
    path = sparse_file(tmp_path / "a.safetensors", shapes("sd1"))
    part = open_checkpoint(path, family="sd2").parts["unet"]
    with pytest.raises(FromnoiseError, match=r"no unet of a sd2 checkpoint: 32 misshapen"):
        part.load_into(build(part.config))
    with pytest.raises(UsageError, match="no family 'sd4'; there are sd1"):
        open_checkpoint(path, family="sd4")
    with pytest.raises(UsageError, match="prediction must be one of epsilon"):
        open_checkpoint(path, prediction="x0")


@pytest.mark.parametrize(
    "said",
    [
        {"tokenizers": "words"},
        {"tokenizers": ["words"]},
        {"tokenizers": {"tokenizer": "words"}},
        {"tokenizers": {"tokenizer": ["words"]}},
        {"tokenizers": {"tokenizer": {"vocab.json": 5}}},
        {"tokenizers": {"tokenizer": {"../vocab.json": "{}"}}},
        {"tokenizers": {"tokenizer": {"vocab.json": "\ud800"}}},
        {"family": "\ud800"},
        {"pipeline_class": 5},
        {"scheduler": {"timestep_spacing": 5}},
        {"scheduler": {"beta_start": "a"}},
        {"scheduler": 5},
        {"parts": {"unet": 5}},
    ],
)
def test_what_a_file_says_of_itself_is_of_the_proper_kinds(tmp_path: Path, said: dict[str, object]):
    path = tmp_path / "x.safetensors"
    write_file(path, small("sd1"))
    with safe_open(path, "pt") as file:
        own = json.dumps({**json.loads(file.metadata()[OWN]), **said})
    save_file(load_file(path), path, {OWN: own, DIGEST: hashlib.sha256(own.encode()).hexdigest()})
    with pytest.raises(FromnoiseError, match=r"^[^\n]*x.safetensors[^\n]*$"):
        open_checkpoint(path)


@pytest.mark.parametrize("prefix", ["", "cond_stage_model.transformer."])
def test_a_tensor_without_dimensions(tmp_path: Path, prefix: str):
    tensors = published_shapes(FAMILIES["sd1"]) if prefix else {}
    tensors = {**tensors, f"{prefix}text_model.embeddings.token_embedding.weight": shape_only()}
    path = sparse_file(tmp_path / "x.safetensors", tensors)

    def read() -> None:
        part = open_checkpoint(path).parts["text_encoder"]
        part.load_into(build(part.config))

    with pytest.raises(FromnoiseError, match=r"x.safetensors"):
        read()


def test_nothing_there(tmp_path: Path):
    with pytest.raises(UsageError, match="there is no checkpoint at"):
        open_checkpoint(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="no Stable Diffusion folder at"):
        open_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "x.safetensors"
    write_file(path, small("sd1"))
    return path.read_bytes()


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_is_an_error_or_loads_the_same(tmp_path: Path, intact: bytes, data: st.DataObject):
    """Bytes exchanged anywhere in the header of a whole checkpoint: never another error, never another model."""
    header = 8 + int.from_bytes(intact[:8], "little")
    at = data.draw(st.integers(0, header - 1))
    new = data.draw(st.binary(min_size=1, max_size=3) | st.sampled_from([b"0", b"1", b"a", b"}", b",", b'"']))
    path = tmp_path / "x.safetensors"
    path.write_bytes(intact[:at] + new + intact[at + len(new) :])
    try:
        checkpoint = open_checkpoint(path)
        for part in checkpoint.parts.values():
            part.load_into(build(part.config))
    except FromnoiseError:
        return
    assert same(checkpoint, small("sd1"))
    assert checkpoint.scheduler == small("sd1").scheduler


def _with_bias(path: Path, tensors: dict[str, Stored], deviation: float) -> Path:
    """A sparse file, one bias of which has values."""
    key = UNET + V_SIGNS[0]
    shape = tensors[key].shape
    values = Stored.of(torch.randn(shape, generator=torch.Generator().manual_seed(0)).half() * deviation)
    ordered = {key: values, **{name: each for name, each in tensors.items() if name != key}}
    sparse_file(path, ordered)
    with path.open("r+b") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        file.write(values.read().numpy().tobytes())
    return path
