"""What fromnoise converts, diffusers loads: its own readers of both layouts find every weight, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DiffusionPipeline,
    LatentConsistencyModelPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from fromnoise.checkpoints import Checkpoint, open_checkpoint
from fromnoise.checkpoints.convert import convert_checkpoint
from fromnoise.checkpoints.model_folder import write_folder
from tests.checkpoints.samples import same, small

PIPELINES: Mapping[str, type[DiffusionPipeline]] = {
    "sd1": StableDiffusionPipeline,
    "sd1-inpaint": StableDiffusionInpaintPipeline,
    "sd2": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
    "lcm": LatentConsistencyModelPipeline,
}
OFFLINE = {"local_files_only": True, "torch_dtype": torch.float32}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    diffusers.utils.logging.disable_progress_bar()


def found_in(module: torch.nn.Module, checkpoint: Checkpoint, part: str) -> bool:
    """True when diffusers' or transformers' module holds just our weights; newer ones drop CLIP's `text_model.`."""
    theirs = {key.removeprefix("text_model."): each for key, each in module.state_dict().items()}
    ours = {key.removeprefix("text_model."): each.read() for key, each in checkpoint.parts[part].tensors.items()}
    theirs.pop("embeddings.position_ids", None)
    assert theirs.keys() == ours.keys()
    return all(torch.equal(theirs[key], ours[key]) for key in ours)


@pytest.mark.parametrize("family", PIPELINES)
def test_diffusers_loads_the_folder(tmp_path: Path, family: str):
    checkpoint = small(family)
    write_folder(tmp_path / "model", checkpoint)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None, **OFFLINE)
    assert isinstance(pipe, PIPELINES[family])
    assert all(found_in(getattr(pipe, part), checkpoint, part) for part in checkpoint.parts)
    assert pipe.tokenizer("a red apple").input_ids == [49406, 320, 736, 3055, 49407]


@pytest.mark.parametrize("family", [family for family in PIPELINES if family != "lcm"])
def test_diffusers_loads_the_single_file(tmp_path: Path, family: str):
    checkpoint = small(family)
    write_folder(tmp_path / "model", checkpoint)
    convert_checkpoint(tmp_path / "model", tmp_path / "x.safetensors")
    pipe = PIPELINES[family].from_single_file(
        str(tmp_path / "x.safetensors"), config=str(tmp_path / "model"), safety_checker=None, **OFFLINE
    )
    assert all(found_in(getattr(pipe, part), checkpoint, part) for part in checkpoint.parts)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("controlnet-sd1", ControlNetModel),
        ("controlnet-sd2", ControlNetModel),
        ("controlnet-sdxl", ControlNetModel),
        ("vae", AutoencoderKL),
        ("unet", UNet2DConditionModel),
    ],
)
def test_diffusers_loads_a_lone_part(tmp_path: Path, family: str, kind: type):
    checkpoint = small("sd1" if family in ("vae", "unet") else family)
    part = family if family in ("vae", "unet") else "controlnet"
    lone = Checkpoint(tmp_path, family, {part: checkpoint.parts[part]})
    write_folder(tmp_path / "part", lone)
    convert_checkpoint(tmp_path / "part", tmp_path / "x.safetensors")
    one = kind.from_single_file(str(tmp_path / "x.safetensors"), config=str(tmp_path / "part"), **OFFLINE)
    other = kind.from_pretrained(tmp_path / "part", **OFFLINE)
    assert found_in(one, lone, part)
    assert found_in(other, lone, part)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_what_diffusers_writes_is_read(tmp_path: Path, variant: str | None, safe: bool, shard: str):
    checkpoint = small("sd1")
    write_folder(tmp_path / "model", checkpoint)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None, **OFFLINE)
    for part in ("unet", "vae"):
        getattr(pipe, part).save_pretrained(
            tmp_path / "again" / part, variant=variant, safe_serialization=safe, max_shard_size=shard
        )
        found = open_checkpoint(tmp_path / "again" / part)
        assert len(list((tmp_path / "again" / part).glob("*00002-of*"))) == (shard == "20KB")
        assert found_in(getattr(pipe, part), found, part)


def test_what_diffusers_saves_whole_is_read_and_converted(tmp_path: Path):
    checkpoint = small("sdxl", torch.float16)
    write_folder(tmp_path / "model", checkpoint)
    pipe = StableDiffusionXLPipeline.from_pretrained(
        tmp_path / "model", local_files_only=True, torch_dtype=torch.float16
    )
    pipe.save_pretrained(tmp_path / "again", variant="fp16")
    convert_checkpoint(tmp_path / "again", tmp_path / "x.safetensors")
    found = open_checkpoint(tmp_path / "x.safetensors")
    assert found.dtype == torch.float16
    for name, part in checkpoint.parts.items():
        assert {key: each.shape for key, each in part.tensors.items()} == {
            key: each.shape for key, each in found.parts[name].tensors.items()
        }
        assert all(
            torch.equal(each.read(), found.parts[name].tensors[key].read()) for key, each in part.tensors.items()
        )


def test_layouts_are_one_and_the_same(tmp_path: Path):
    checkpoint = small("sd2")
    write_folder(tmp_path / "model", checkpoint)
    convert_checkpoint(tmp_path / "model", tmp_path / "x.safetensors")
    convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "back")
    assert same(open_checkpoint(tmp_path / "back"), checkpoint)
