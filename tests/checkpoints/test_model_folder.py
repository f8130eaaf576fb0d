"""The diffusers folder: what it says about itself, its historical spellings, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fromnoise.checkpoints import Checkpoint, open_checkpoint
from fromnoise.checkpoints.building import build
from fromnoise.checkpoints.checkpoint import class_of
from fromnoise.checkpoints.convert import convert_checkpoint
from fromnoise.checkpoints.model_folder import write_folder
from fromnoise.checkpoints.tokenizers import read_texts
from fromnoise.models.published import FAMILIES
from fromnoise.pipeline import load
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.text import Tokenizer
from tests.checkpoints.samples import same, small

VAE = Path("vae", "diffusion_pytorch_model.safetensors")
TEXT = Path("text_encoder", "model.safetensors")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_folder(tmp_path / "model", small("sd1"))
    return tmp_path / "model"


def respell(path: Path, to) -> None:
    save_file({name: value for key, each in load_file(path).items() for name, value in to(key, each)}, path)


@pytest.mark.parametrize("family", [each.name for each in FAMILIES.values() if each.pipeline_class])
def test_what_is_written_is_read(tmp_path: Path, family: str):
    written = small(family)
    write_folder(tmp_path, written)
    found = open_checkpoint(tmp_path)
    assert same(found, written)
    assert found.scheduler == written.scheduler
    assert found.pipeline_class == written.pipeline_class
    for name, folder in found.tokenizers.items():
        assert folder is not None
        tokenizer = Tokenizer.read(folder)
        assert (len(tokenizer.vocabulary), tokenizer.max_length) == (49408, 77)
        assert tokenizer.pad == (0 if family.startswith(("sd2", "sd-")) or name == "tokenizer_2" else 49407)


@pytest.mark.parametrize("family", [each.name for each in FAMILIES.values() if each.pipeline_class])
def test_a_published_folder_is_recognised_by_its_configs(tmp_path: Path, family: str):
    parts = small(family).parts
    published = {name: replace(part, config=dict(FAMILIES[family].parts[name])) for name, part in parts.items()}
    write_folder(tmp_path, replace(small(family), parts=published))
    assert open_checkpoint(tmp_path).family == family


def test_another_model_is_custom(model: Path):
    assert open_checkpoint(model).family == "custom"
    assert open_checkpoint(model, family="sd1").family == "sd1"
    assert open_checkpoint(model, prediction="v_prediction").scheduler["prediction_type"] == "v_prediction"


def test_old_spellings_of_the_autoencoder(model: Path):
    before = open_checkpoint(model)
    expected = {key: each.read().clone() for key, each in before.parts["vae"].tensors.items()}
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(key: str, each: torch.Tensor):
        for new, name in names.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{name}.")
        yield key, each

    respell(model / VAE, old)
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in load_file(model / VAE)
    part = open_checkpoint(model).parts["vae"]
    part.load_into(module := build(part.config))
    assert all(torch.equal(each, expected[key]) for key, each in module.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoders_with_and_without_their_prefix_and_positions(model: Path, prefix: str):
    def spell(key: str, each: torch.Tensor):
        yield prefix + key.removeprefix("text_model."), each
        if "position_embedding" in key:
            yield prefix + "embeddings.position_ids", torch.arange(len(each))[None]

    respell(model / TEXT, spell)
    part = open_checkpoint(model).parts["text_encoder"]
    assert part.load_into(build(part.config)).complete
    assert list(part.extras) == [prefix + "embeddings.position_ids"]


def test_loading_casts_and_keeps(model: Path):
    part = open_checkpoint(model).parts["unet"]
    part.load_into(kept := build(part.config))
    part.load_into(cast := build(part.config), torch.bfloat16)
    assert part.dtype == torch.float32 == kept.conv_in.weight.dtype
    assert torch.equal(cast.conv_in.weight, kept.conv_in.weight.bfloat16())


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_part_by_itself(model: Path, part: str):
    checkpoint = open_checkpoint(model / part)
    assert list(checkpoint.parts) == [part]
    assert checkpoint.parts[part].load_into(build(checkpoint.parts[part].config)).complete
    weights = next((model / part).glob("*.safetensors"))
    assert open_checkpoint(weights).parts[part].config == checkpoint.parts[part].config


def test_a_vocabulary_in_one_file(model: Path):
    """transformers from release 5 writes tokenizer.json alone."""
    folder = model / "tokenizer"
    vocabulary = json.loads((folder / "vocab.json").read_text())
    merges = (folder / "merges.txt").read_text().splitlines()[1:]
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    whole = {"model": {"vocab": vocabulary, "merges": [each.split() for each in merges]}}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    found = open_checkpoint(model).tokenizers["tokenizer"]
    assert found is not None
    assert Tokenizer.read(found).vocabulary == Tokenizer.clip().vocabulary
    (folder / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {**vocabulary, "qqqq!": 49408}, "merges": merges}})
    )
    own = open_checkpoint(model).tokenizers["tokenizer"]
    assert own is not None
    assert len(Tokenizer.read(own).vocabulary) == 49409
    assert Tokenizer.read(own).merges == Tokenizer.clip().merges
    added = [{"id": 49407, "content": "<|endoftext|>", "special": True}, {"id": 49408, "content": "<cat>"}]
    (folder / "tokenizer.json").write_text(json.dumps({**whole, "added_tokens": added}))
    kept = model.parent / "kept"
    kept.mkdir()
    for name, text in read_texts(folder).items():
        (kept / name).write_text(text)
    ids = [Tokenizer.read(each).encode(["a <cat>"])[0].tolist() for each in (kept, folder)]
    assert ids[0] == ids[1] and 49408 in ids[0]
    (folder / "tokenizer.json").write_text(json.dumps({**whole, "added_tokens": [{"content": "<cat>"}]}))
    with pytest.raises(FromnoiseError, match=r"tokenizer.json has added tokens that can't be"):
        read_texts(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(FromnoiseError, match=r"tokenizer.json holds no vocabulary"):
        load(model)


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_folder_of_another_kind_is_refused(model: Path):
    edit(model / "model_index.json", transformer=["diffusers", "SD3Transformer2DModel"])
    with pytest.raises(FromnoiseError, match="its transformer is a SD3Transformer2DModel, which is not supported"):
        open_checkpoint(model)


def test_parts_that_nobody_needs_are_passed_over(model: Path):
    edit(
        model / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    assert open_checkpoint(model).parts.keys() == {"unet", "vae", "text_encoder"}


def test_missing_pieces_are_named(model: Path):
    (model / VAE).unlink()
    with pytest.raises(FromnoiseError, match="vae has no weights"):
        open_checkpoint(model)
    (model / "unet" / "config.json").unlink()
    with pytest.raises(FromnoiseError, match=r"unet/config.json is missing"):
        open_checkpoint(model)
    (model / "model_index.json").unlink()
    with pytest.raises(UsageError, match="no Stable Diffusion folder at"):
        open_checkpoint(model)


def test_weights_of_another_family_are_named(model: Path, tmp_path: Path):
    write_folder(tmp_path / "other", small("sdxl"))
    weights = Path("unet", "diffusion_pytorch_model.safetensors")
    (model / weights).write_bytes((tmp_path / "other" / weights).read_bytes())
    part = open_checkpoint(model).parts["unet"]
    with pytest.raises(
        FromnoiseError, match=r"is no unet of a custom checkpoint: \d+ missing .*; \d+ unknown .*add_emb"
    ):
        part.load_into(build(part.config))


def test_a_written_lone_part_has_no_index(tmp_path: Path):
    lone = Checkpoint(tmp_path, "taesd", dict(small("taesd").parts))
    write_folder(tmp_path / "taesd", lone)
    assert sorted(each.name for each in (tmp_path / "taesd").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert same(open_checkpoint(tmp_path / "taesd"), lone)


@pytest.mark.parametrize("said", [True, False])
def test_whether_an_empty_negative_prompt_is_zeros_is_kept(tmp_path: Path, said: bool):
    write_folder(tmp_path / "model", replace(small("sdxl"), zero_negative=said))
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["force_zeros_for_empty_prompt"] is said
    convert_checkpoint(tmp_path / "model", tmp_path / "x.safetensors")
    for path in (tmp_path / "model", tmp_path / "x.safetensors"):
        assert open_checkpoint(path).zero_negative is said


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("scheduler/scheduler_config.json", "beta_start", "a"),
        ("scheduler/scheduler_config.json", "steps_offset", [1]),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 10**12),
        ("unet/config.json", "block_out_channels", ["a"]),
        ("text_encoder/config.json", "hidden_size", "wide"),
        ("vae/config.json", "block_out_channels", [1e9, 1e9]),
        ("vae/config.json", "scaling_factor", None),
        ("vae/config.json", "scaling_factor", "half"),
        ("unet/config.json", "sample_size", None),
        ("unet/config.json", "norm_eps", "1e-5"),
        ("unet/config.json", "freq_shift", "0"),
        ("text_encoder/config.json", "layer_norm_eps", "small"),
        ("text_encoder/config.json", "num_attention_heads", None),
    ],
)
def test_wrong_values_are_one_line(tiny_model: Path, tmp_path: Path, file: str, field: str, value: object):
    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(FromnoiseError, match=rf"^[^\n]*{field}[^\n]*$"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("part", "heads"), [("text_encoder", {"num_attention_heads": 5}), ("unet", {"attention_head_dim": 5})]
)
def test_heads_that_do_not_share_a_width_are_one_line(tiny_model: Path, part: str, heads: dict[str, int]):
    config = json.loads((tiny_model / part / "config.json").read_text())
    with pytest.raises(FromnoiseError, match=r"^[^\n]*has 5 heads for (32|64) channels[^\n]*$"):
        build({**config, **heads})


@pytest.mark.parametrize("architectures", [5, {"a": 1}, [], None])
def test_a_class_that_is_no_name_is_none(architectures: object):
    assert class_of({"architectures": architectures}) == ""
