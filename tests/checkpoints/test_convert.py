"""From folder to file and back: every named tensor keeps its bits and dtype, and nothing is left half done."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fromnoise.checkpoints import Checkpoint, open_checkpoint
from fromnoise.checkpoints.convert import convert_checkpoint, write_checkpoint
from fromnoise.checkpoints.destinations import require_free
from fromnoise.checkpoints.model_folder import EXTRAS, write_folder
from fromnoise.checkpoints.single_file import write_file
from fromnoise.checkpoints.stored import Stored
from fromnoise.checkpoints.weights import open_weights
from fromnoise.models.published import FAMILIES
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.paths import EMBEDDED_MODEL
from tests.checkpoints.samples import bits, equal, same, small

WHOLE = [family.name for family in FAMILIES.values() if family.pipeline_class]
LONE = [family.name for family in FAMILIES.values() if not family.pipeline_class]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_folder(tmp_path / "model", small("sd2"))
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("family", "dtype"), [("sd1", torch.float32), ("sd2", torch.float16), ("sdxl", torch.bfloat16)]
)
def test_there_and_back_from_the_folder(tmp_path: Path, family: str, dtype: torch.dtype):
    checkpoint = small(family, dtype)
    write_folder(tmp_path / "one", checkpoint)
    convert_checkpoint(tmp_path / "one", tmp_path / "x.safetensors")
    convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "two")
    assert same(open_checkpoint(tmp_path / "two"), checkpoint)
    files = {each.relative_to(tmp_path / "one") for each in (tmp_path / "one").rglob("*")}
    assert files == {each.relative_to(tmp_path / "two") for each in (tmp_path / "two").rglob("*")}
    for file in (each for each in files if each.suffix == ".json"):
        assert (tmp_path / "one" / file).read_text() == (tmp_path / "two" / file).read_text()


@pytest.mark.parametrize("family", WHOLE)
def test_there_and_back_from_the_single_file(tmp_path: Path, family: str):
    write_file(tmp_path / "one.safetensors", small(family, torch.float16))
    convert_checkpoint(tmp_path / "one.safetensors", tmp_path / "model")
    convert_checkpoint(tmp_path / "model", tmp_path / "two.safetensors")
    one, two = (open_weights(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert equal(one.tensors, two.tensors)
    found = open_checkpoint(tmp_path / "two.safetensors")
    assert (found.family, found.scheduler) == (open_checkpoint(tmp_path / "model").family, small(family).scheduler)


@pytest.mark.parametrize("family", [*LONE, "vae", "unet"])
def test_lone_parts(tmp_path: Path, family: str):
    checkpoint = small(family if family in LONE else "sd1")
    parts = dict(checkpoint.parts) if family in LONE else {family: checkpoint.parts[family]}
    lone = Checkpoint(tmp_path, "custom", parts)
    write_folder(tmp_path / "one", lone)
    convert_checkpoint(tmp_path / "one", tmp_path / "x.safetensors")
    convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "two")
    assert same(open_checkpoint(tmp_path / "two"), lone)


def with_extras(path: Path) -> dict[str, torch.Tensor]:
    """A single file of SD 2 with what published ones have besides; returns the extras."""
    layer = "cond_stage_model.model.transformer.resblocks.{}."
    whole = load_file(path)
    extras = {key.replace(".2.", ".3."): each + 1 for key, each in whole.items() if key.startswith(layer.format(2))}
    extras |= {"cond_stage_model.model.text_projection": torch.randn(32, 32), "betas": torch.rand(9)}
    extras |= {"cond_stage_model.model.logit_scale": torch.tensor(4.6), "model_ema.num_updates": torch.tensor(7)}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({**whole, **extras}, path, {**metadata, "modelspec.author": "somebody"})
    return extras


def test_extras_are_left_behind_or_kept(model: Path, tmp_path: Path):
    single = tmp_path / "x.safetensors"
    convert_checkpoint(model, single)
    extras = with_extras(single)
    whole = open_weights(single)

    converted = convert_checkpoint(single, tmp_path / "without")
    assert set(converted.checkpoint.extra_names) == set(extras)
    assert not (tmp_path / "without" / EXTRAS).exists()
    assert same(open_checkpoint(tmp_path / "without"), open_checkpoint(model))

    convert_checkpoint(single, tmp_path / "with", keep_extra=True)
    assert same(open_checkpoint(tmp_path / "with"), open_checkpoint(model))
    convert_checkpoint(tmp_path / "with", tmp_path / "again.safetensors", keep_extra=True)
    again = open_weights(tmp_path / "again.safetensors")
    assert equal(again.tensors, whole.tensors)
    assert again.metadata["modelspec.author"] == "somebody"

    convert_checkpoint(tmp_path / "with", tmp_path / "less.safetensors")
    assert open_weights(tmp_path / "less.safetensors").tensors.keys() == whole.tensors.keys() - extras.keys()


def test_metadata_goes_through_a_folder_without_extras_too(model: Path, tmp_path: Path):
    write_file(tmp_path / "x.safetensors", replace(open_checkpoint(model), metadata={"modelspec.license": "mine"}))
    convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "with", keep_extra=True)
    convert_checkpoint(tmp_path / "with", tmp_path / "again", keep_extra=True)
    convert_checkpoint(tmp_path / "again", tmp_path / "y.safetensors", keep_extra=True)
    assert open_weights(tmp_path / "again" / EXTRAS).metadata == {"modelspec.license": "mine"}
    assert open_checkpoint(tmp_path / "y.safetensors").metadata["modelspec.license"] == "mine"
    convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "without")
    assert not (tmp_path / "without" / EXTRAS).exists()


BESIDE = ("README.md", "concepts.json", "concepts.safetensors", "fast.safetensors", "vae_tiny/config.json")


def with_companions(model: Path) -> dict[str, bytes]:
    (model / "vae_tiny").mkdir()
    for name in BESIDE:
        (model / name).write_text(name)
    return companions(model)


def companions(model: Path) -> dict[str, bytes]:
    return {name: (model / name).read_bytes() for name in BESIDE if (model / name).exists()}


def test_what_lies_beside_the_parts_goes_along_from_folder_to_folder(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "fromnoise")
    had = with_companions(model)
    convert_checkpoint(model, tmp_path / "copy")
    convert_checkpoint(model, model, overwrite=True)
    assert companions(model) == companions(tmp_path / "copy") == had
    assert not caplog.records
    write_checkpoint(open_checkpoint(model), tmp_path / "merged")
    assert list(companions(tmp_path / "merged")) == ["fast.safetensors", "vae_tiny/config.json"]
    convert_checkpoint(model, tmp_path / "x.safetensors")
    assert [each.message for each in caplog.records] == [
        "left behind: README.md, concepts.json, concepts.safetensors",
        "left behind: README.md, concepts.json, concepts.safetensors, fast.safetensors, vae_tiny",
    ]


def test_a_link_that_leads_nowhere_is_refused_before_the_work(model: Path, tmp_path: Path):
    for name in ("made", "made.safetensors"):
        (tmp_path / name).symlink_to(tmp_path / "gone" / name)
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="is a link that leads nowhere"):
                convert_checkpoint(model, tmp_path / name, overwrite=overwrite)


def test_positions_of_a_folder_are_kept_under_the_single_files_name(tmp_path: Path):
    checkpoint = small("sd1")
    text = checkpoint.parts["text_encoder"]
    positions = {"text_model.embeddings.position_ids": Stored.of(torch.arange(16)[None])}
    parts = {**checkpoint.parts, "text_encoder": replace(text, extras=positions)}
    write_folder(tmp_path / "model", replace(checkpoint, parts=parts), keep_extra=True)
    convert_checkpoint(tmp_path / "model", tmp_path / "x.safetensors", keep_extra=True)
    found = open_checkpoint(tmp_path / "x.safetensors")
    key = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    assert bits(found.extras[key]) == bits(positions["text_model.embeddings.position_ids"])
    assert found.extra_names == (key,)


def test_a_pickle_becomes_safetensors(tmp_path: Path):
    write_file(tmp_path / "x.safetensors", small("sd1"))
    torch.save({"state_dict": load_file(tmp_path / "x.safetensors"), "global_step": 3}, tmp_path / "x.ckpt")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    lone = {key: each for key, each in load_file(tmp_path / "x.safetensors").items() if key.startswith("first_stage")}
    torch.save(lone, tmp_path / "vae.pt")
    with pytest.raises(FromnoiseError, match=r"its unet \(cross_attention_dim 32, .* no family that is known"):
        convert_checkpoint(tmp_path / "x.ckpt", tmp_path / "y.safetensors")  # shrunken, and a pickle has no metadata
    with pytest.raises(FromnoiseError, match=r"vae.pt is no vae of a custom checkpoint: .* misshapen"):
        convert_checkpoint(tmp_path / "vae.pt", tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()
    assert checkpoint.dtype == torch.float32


def test_a_vocabulary_of_ones_own_goes_along(tmp_path: Path, tiny_model: Path):
    convert_checkpoint(tiny_model, tmp_path / "x.safetensors")
    folder = open_checkpoint(tmp_path / "x.safetensors").tokenizers["tokenizer"]
    assert folder is not None
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (folder / name).read_text() == (tiny_model / "tokenizer" / name).read_text()
    convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "back")
    assert same(open_checkpoint(tmp_path / "back"), open_checkpoint(tiny_model))


def test_a_damaged_vocabulary_in_the_cache_is_written_anew(tmp_path: Path, tiny_model: Path):
    convert_checkpoint(tiny_model, tmp_path / "x.safetensors")
    folder = open_checkpoint(tmp_path / "x.safetensors").tokenizers["tokenizer"]
    assert folder is not None
    (folder / "vocab.json").write_bytes(b"\xff")
    (folder / "merges.txt").unlink()
    assert open_checkpoint(tmp_path / "x.safetensors").tokenizers["tokenizer"] == folder
    for name in ("vocab.json", "merges.txt"):
        assert (folder / name).read_text() == (tiny_model / "tokenizer" / name).read_text()


def test_the_prediction_is_stated_where_other_tools_look(model: Path, tmp_path: Path):
    convert_checkpoint(model, tmp_path / "x.safetensors", family="sd2")
    metadata = open_weights(tmp_path / "x.safetensors").metadata
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v2-768-v"
    checkpoint = small("sdxl")
    v = replace(checkpoint, scheduler={**checkpoint.scheduler, "prediction_type": "v_prediction"})
    write_file(tmp_path / "y.safetensors", v)
    assert open_weights(tmp_path / "y.safetensors").tensors["v_pred"].shape == (0,)
    assert open_checkpoint(tmp_path / "y.safetensors").scheduler["prediction_type"] == "v_prediction"


def test_a_mark_that_was_overruled_is_not_kept(tmp_path: Path):
    checkpoint = small("sdxl")
    v = replace(checkpoint, scheduler={**checkpoint.scheduler, "prediction_type": "v_prediction"})
    write_file(tmp_path / "x.safetensors", v)
    convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "y.safetensors", keep_extra=True)
    assert "v_pred" in open_weights(tmp_path / "y.safetensors").tensors
    convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "z.safetensors", keep_extra=True, prediction="epsilon")
    assert "v_pred" not in open_weights(tmp_path / "z.safetensors").tensors
    assert open_checkpoint(tmp_path / "z.safetensors").scheduler["prediction_type"] == "epsilon"


def test_a_lone_autoencoder_without_its_scaling_factor(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    vae = small("sdxl").parts["vae"]
    unscaled = replace(vae, config={name: value for name, value in vae.config.items() if name != "scaling_factor"})
    for part, warned in ((unscaled, True), (vae, False)):
        caplog.clear()
        write_checkpoint(Checkpoint(tmp_path, "custom", {"vae": part}), tmp_path / f"vae-{warned}")
        assert ("does not say how its latents are scaled" in caplog.text) == warned


def test_an_incomplete_checkpoint_is_not_converted(model: Path, tmp_path: Path):
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.weight"]
    save_file(tensors, weights)
    with pytest.raises(FromnoiseError, match=r"no unet of a custom checkpoint: 1 missing \(conv_in.weight\)"):
        convert_checkpoint(model, tmp_path / "x.safetensors")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("name", ["absolute", "../victim/unet", "unet2", "vae_tiny", "unet/../../victim"])
def test_a_part_of_another_name_is_refused_and_nothing_is_written(model: Path, tmp_path: Path, name: str):
    """Parts are written under the names of their index, which a stranger wrote."""
    name = str(tmp_path / "victim" / "unet") if name == "absolute" else name
    index = json.loads((model / "model_index.json").read_text())
    index[name] = index["unet"]
    (model / "model_index.json").write_text(json.dumps(index))
    shutil.copytree(model / "unet", model / name, dirs_exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    for destination in (tmp_path / "made", tmp_path / "made.safetensors"):
        with pytest.raises(FromnoiseError, match=r"^[^\n]*model_index.json names [^\n]*, which is none of [^\n]*$"):
            convert_checkpoint(model, destination)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_overwritten_unasked(model: Path, tmp_path: Path):
    single, folder = tmp_path / "x.safetensors", tmp_path / "copy"
    convert_checkpoint(model, single)
    convert_checkpoint(single, folder)
    before = single.read_bytes()
    for source, place in ((model, single), (single, folder)):
        with pytest.raises(UsageError, match="exists; choose another name"):
            convert_checkpoint(source, place)
    (folder / "unet" / "old.json").write_text("old")
    convert_checkpoint(model, single, overwrite=True)
    convert_checkpoint(single, folder, overwrite=True)
    assert single.read_bytes() == before
    assert not (folder / "unet" / "old.json").exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "model", "x.safetensors"]


def test_places_that_are_refused(model: Path, tmp_path: Path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    convert_checkpoint(model, tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").mkdir()
    for source, place, words in (
        (tmp_path / "x.safetensors", "papers", "a folder of something else"),
        (tmp_path / "x.safetensors", "x.ckpt", "pickles are read, never written"),
        (model, "y.safetensors", "of the other kind"),
        (model / "unet", "model", "holds .* itself"),
    ):
        with pytest.raises(UsageError, match=words):
            convert_checkpoint(source, tmp_path / place, overwrite=True)
    assert (tmp_path / "papers" / "thesis.txt").read_text() == "years of work"
    assert (model / "model_index.json").is_file()


@pytest.mark.parametrize(
    "made", ["config.json", "model/thesis.txt", "model/unet/thesis.txt", "model/src/thesis.json", "model/unet/a/b.json"]
)
def test_a_folder_that_holds_more_than_a_model_stays(model: Path, tmp_path: Path, made: str):
    convert_checkpoint(model, tmp_path / "x.safetensors")
    (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / made).write_text("{}")
    place = tmp_path / "model" if made.startswith("model") else tmp_path
    with pytest.raises(UsageError, match=r"a folder of something else|holds"):
        convert_checkpoint(tmp_path / "x.safetensors", place, overwrite=True)
    with pytest.raises(UsageError, match="a folder of something else"):
        require_free(place, overwrite=True)
    assert (tmp_path / made).is_file()


def test_a_models_folder_and_that_of_a_part_may_be_replaced(model: Path, monkeypatch: pytest.MonkeyPatch):
    require_free(EMBEDDED_MODEL, overwrite=True)
    require_free(model / "unet", overwrite=True)
    with pytest.raises(UsageError, match="is a part of"):
        convert_checkpoint(model, model / "unet", overwrite=True)
    monkeypatch.chdir(model)
    with pytest.raises(UsageError, match="that you are in"):
        require_free(Path(), overwrite=True)
    with pytest.raises(UsageError, match="pickles are read"):
        require_free(Path("x.CKPT"), overwrite=True)


def test_an_ending_may_be_in_capitals(model: Path, tmp_path: Path):
    convert_checkpoint(model, tmp_path / "x.SAFETENSORS")
    assert (tmp_path / "x.SAFETENSORS").is_file()


def test_a_failure_half_way_leaves_the_old_folder(model: Path, tmp_path: Path):
    checkpoint = open_checkpoint(model)
    broken = Stored((4,), torch.float32, lambda: torch.zeros(3))
    vae = checkpoint.parts["vae"]
    parts = {**checkpoint.parts, "vae": replace(vae, tensors={**vae.tensors, "post_quant_conv.bias": broken})}
    convert_checkpoint(model, tmp_path / "copy")
    with pytest.raises(FromnoiseError, match=r"post_quant_conv.bias read as"):
        write_checkpoint(replace(checkpoint, parts=parts), tmp_path / "copy", overwrite=True)
    assert same(open_checkpoint(tmp_path / "copy"), open_checkpoint(model))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "model"]
