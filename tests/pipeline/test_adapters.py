"""Adapters asked for by a request or by its prompt change its drawing, and no other."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import fromnoise as fn
from fromnoise.adapters import Embedding, adapter_hash, write_embedding, write_lora
from fromnoise.adapters import Lora as Factors
from fromnoise.request import AdapterHash, Lora

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
SAID = {"seed": 3, "steps": 3, "sampler": "euler"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="module")
def pipe(tiny_model: Path, folder: Path) -> fn.Pipeline:
    pipe = fn.load(tiny_model, lora_folder=folder)
    shape = pipe.unet.get_submodule(LAYER).weight.shape
    draw = torch.Generator().manual_seed(0)
    up, down = torch.randn(shape[0], 2, generator=draw), torch.randn(2, shape[1], generator=draw)
    write_lora(folder / "cat.safetensors", {"unet": {LAYER: Factors(up, down)}})
    vectors = torch.randn(2, 32, generator=draw)
    write_embedding(folder / "thing.safetensors", Embedding("<thing>", {"text_encoder": vectors}))
    return pipe


def pixels(pipe: fn.Pipeline, prompt: str, **fields: object) -> np.ndarray:
    return np.asarray(pipe(prompt, **{**SAID, **fields})[0].image).astype(int)


def test_a_lora_changes_its_own_drawing_alone(pipe: fn.Pipeline, folder: Path) -> None:
    before = pixels(pipe, "a kite")
    adapted = pixels(pipe, "a kite", loras=(Lora(str(folder / "cat.safetensors"), 0.8),))
    assert not np.array_equal(before, adapted)
    assert np.array_equal(before, pixels(pipe, "a kite"))
    assert np.array_equal(adapted, pixels(pipe, "a kite<lora:cat:0.8>"))
    assert np.array_equal(before, pixels(pipe, "a kite", loras=(Lora(str(folder / "cat.safetensors"), 0.0),)))


def test_a_textual_inversion_gives_its_token_a_meaning(pipe: fn.Pipeline, folder: Path) -> None:
    inversion = (str(folder / "thing.safetensors"),)
    assert not np.array_equal(pixels(pipe, "a <thing>"), pixels(pipe, "a <thing>", embeddings=inversion))
    assert np.array_equal(pixels(pipe, "a kite"), pixels(pipe, "a kite", embeddings=inversion))


def test_pictures_carry_the_hashes_of_what_adapted_them(pipe: fn.Pipeline, folder: Path) -> None:
    files = {"lora": folder / "cat.safetensors", "embedding": folder / "thing.safetensors"}
    expected = {kind: adapter_hash(path, tensors_only=kind == "lora") for kind, path in files.items()}
    assert len(set(expected.values())) == 2
    drawn = pipe("a <thing> <lora:cat:0.5>", embeddings=(str(files["embedding"]),), **SAID)[0].request
    assert drawn.hashes == (
        AdapterHash("lora", "cat", expected["lora"]),
        AdapterHash("embedding", "thing", expected["embedding"]),
    )
    assert pipe("a kite", **SAID)[0].request.hashes == ()
    assert pipe("a kite", hashes=drawn.hashes, **SAID)[0].request.hashes == ()


def test_each_pictures_hashes_are_of_its_own_choice(pipe: fn.Pipeline) -> None:
    request = pipe.resolve("a kite {<lora:cat:0.5>|by day}", count=6, **SAID)
    for each in pipe.alone(request):
        assert [known.name for known in each.hashes] == (["cat"] if "lora" in each.prompt else [])
    assert {len(each.hashes) for each in pipe.alone(request)} == {0, 1}


def test_an_adapter_is_found_in_the_folder_when_its_path_is_gone(pipe: fn.Pipeline, folder: Path) -> None:
    gone = (Lora("/another/machine/cat.safetensors", 0.8),)
    here = (Lora(str(folder / "cat.safetensors"), 0.8),)
    assert np.array_equal(pixels(pipe, "a kite", loras=gone), pixels(pipe, "a kite", loras=here))
    for nowhere in ({"loras": (Lora("/gone/dog.safetensors"),)}, {"embeddings": ("/gone/dog.safetensors",)}):
        with pytest.raises(fn.UsageError, match=r"the adapter /gone/dog\.safetensors isn't there"):
            pipe.resolve("a kite", **nowhere)


def test_what_a_prompt_names_must_be_there(pipe: fn.Pipeline, tiny_model: Path) -> None:
    with pytest.raises(fn.UsageError, match="no adapter called 'dog'"):
        pipe("a kite <lora:dog:1>", **SAID)
    with pytest.raises(fn.UsageError, match="--loras"):
        fn.load(tiny_model)("a kite <lora:cat:1>", **SAID)
    with pytest.raises(fn.UsageError, match="hypernet"):
        pipe("a kite <hypernet:cat:1>", **SAID)


def test_a_file_that_is_written_anew_is_read_anew(pipe: fn.Pipeline, tiny_model: Path, tmp_path: Path) -> None:
    shape, file = pipe.unet.get_submodule(LAYER).weight.shape, tmp_path / "new.safetensors"
    drawn, hashes = [], []
    for seed in (1, 2):
        draw = torch.Generator().manual_seed(seed)
        factors = Factors(torch.randn(shape[0], 2, generator=draw), torch.randn(2, shape[1], generator=draw))
        file.unlink(missing_ok=True)
        write_lora(file, {"unet": {LAYER: factors}})
        os.utime(file, ns=(1, 1))  # as copies that keep their times do
        drawn.append(pixels(pipe, "a kite", loras=(Lora(str(file)),)))
        hashes.append(adapter_hash(file, tensors_only=True))
    assert not np.array_equal(*drawn)
    assert hashes[0] != hashes[1]
    assert np.array_equal(drawn[1], pixels(fn.load(tiny_model), "a kite", loras=(Lora(str(file)),)))


def test_a_weight_that_is_no_number_is_said(pipe: fn.Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    assert np.array_equal(pixels(pipe, "a <lora:cat:0,3>"), pixels(pipe, "a <lora:cat:1>"))
    assert "'0,3' in <lora:…> is no number; 1 is taken" in caplog.text


def test_a_request_of_another_kind(pipe: fn.Pipeline) -> None:
    with pytest.raises(fn.UsageError, match="prompt must be text"):
        pipe(5)  # type: ignore[arg-type]
