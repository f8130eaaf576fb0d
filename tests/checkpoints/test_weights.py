"""Pickles that are only read for their weights; shards, variants, and which file of a folder is taken."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fromnoise.checkpoints.weights import find_weights, open_weights
from fromnoise.runtime.errors import FromnoiseError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
RAN: list[str] = []


class Code:
    """A pickle of this asks its reader to run `exec`."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (self.what,)


def values(path: Path) -> dict[str, list]:
    return {key: each.read().tolist() for key, each in open_weights(path).tensors.items()}


EXPECTED = {key: each.tolist() for key, each in WEIGHTS.items()}


@pytest.mark.parametrize("name", ["x.ckpt", "x.pt", "x.bin"])
@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(
    "wrap", [dict, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": {"state_dict": w}}]
)
def test_pickles_are_read_whatever_they_are_called(tmp_path: Path, name: str, modern: bool, wrap):
    torch.save(wrap(WEIGHTS), tmp_path / name, _use_new_zipfile_serialization=modern)
    assert values(tmp_path / name) == EXPECTED


def test_a_pickle_under_a_false_name(tmp_path: Path):
    torch.save(WEIGHTS, tmp_path / "x.safetensors")
    with pytest.raises(FromnoiseError, match=r"is a pickle that calls itself .safetensors; rename it to .ckpt"):
        open_weights(tmp_path / "x.safetensors")


def test_safetensors_under_another_name(tmp_path: Path):
    save_file(WEIGHTS, tmp_path / "x.ckpt")
    assert values(tmp_path / "x.ckpt") == EXPECTED


@pytest.mark.parametrize("modern", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_nothing_runs(tmp_path: Path, modern: bool):
    mark = tmp_path / "ran"
    content = {"state_dict": WEIGHTS, "x": Code(f"open({str(mark)!r}, 'w').close()")}
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=modern)
    with pytest.raises(FromnoiseError, match=r"x.ckpt is a pickle that wants to run code \(.*exec\); nothing was run"):
        open_weights(tmp_path / "x.ckpt")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Code(f"open({str(mark)!r}, 'w').close()")))  # the code would have worked
    assert mark.exists()


def test_the_training_record_in_published_pickles_is_passed_over(tmp_path: Path):
    """sd-v1-4.ckpt names a class of pytorch_lightning that nobody needs to have installed."""
    torch.save({"state_dict": WEIGHTS, "callbacks": "HERE", "global_step": 875000}, tmp_path / "x.ckpt")
    swapped = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "x.ckpt") as old, zipfile.ZipFile(swapped, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("data.pkl"):
                named = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
                content = content.replace(b"X\x04\x00\x00\x00HERE", named)
                assert named in content
            new.writestr(item.filename, content)
    (tmp_path / "y.ckpt").write_bytes(swapped.getvalue())
    assert values(tmp_path / "y.ckpt") == EXPECTED
    assert open_weights(tmp_path / "y.ckpt").metadata == {"global_step": "875000"}


@pytest.mark.parametrize("cut", [1, 30, 200, -1, -40])
@pytest.mark.parametrize("modern", [True, False])
def test_a_truncated_pickle(tmp_path: Path, cut: int, modern: bool):
    torch.save(WEIGHTS, tmp_path / "x.ckpt", _use_new_zipfile_serialization=modern)
    (tmp_path / "x.ckpt").write_bytes((tmp_path / "x.ckpt").read_bytes()[:cut])
    with pytest.raises(FromnoiseError, match=r"x.ckpt is (damaged|a pickled)"):
        open_weights(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x02garbage", "Unsupported operand 103"),
        (b"\x80\x04garbage", "Unsupported operand 103"),
        (pickle.dumps(eval), "Unsupported operand"),
        (pickle.dumps(eval, 2), r"wants to run code \(eval\); nothing was run"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_broken_pickle_is_one_line_without_advice_to_run_it(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(FromnoiseError, match=rf"^[^\n]*{words}[^\n]*$") as caught:
        open_weights(tmp_path / "x.ckpt")
    assert "weights_only" not in str(caught.value)


def test_wrappers_that_hold_one_another(tmp_path: Path):
    content: dict[str, object] = {}
    content["model"] = {"state_dict": content}
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(FromnoiseError, match="without weights"):
        open_weights(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "strange", [torch.ones(3).to_sparse(), torch.ones(3, device="meta"), torch.ones(3, dtype=torch.complex64)]
)
def test_tensors_without_plain_numbers_are_named(tmp_path: Path, strange: torch.Tensor):
    torch.save({**WEIGHTS, "odd": strange}, tmp_path / "x.bin")
    with pytest.raises(FromnoiseError, match=r"^[^\n]*x.bin keeps odd in a form[^\n]*$"):
        open_weights(tmp_path / "x.bin")


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.ones(2)])
def test_a_pickle_without_weights(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(FromnoiseError, match=r"x.ckpt is a pickle"):
        open_weights(tmp_path / "x.ckpt")


def shards(folder: Path, variant: str = "") -> Path:
    names = [f"model{variant}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, (key, each) in zip(names, WEIGHTS.items(), strict=True):
        save_file({key: each}, folder / name)
    index = folder / f"model.safetensors.index{variant}.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict(zip(WEIGHTS, names, strict=True))}))
    return index


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_shards_are_put_together(tmp_path: Path, variant: str):
    index = shards(tmp_path, variant)
    weights = find_weights(tmp_path)
    assert weights.path == index
    assert {key: each.read().tolist() for key, each in weights.tensors.items()} == EXPECTED


def test_damaged_shards(tmp_path: Path):
    index = shards(tmp_path)
    second = tmp_path / "model-00002-of-00002.safetensors"
    for tensors, words in (({}, "lacks a.bias"), ({**WEIGHTS, "a.bias": torch.ones(2)}, "does not list 1 keys")):
        save_file(tensors, second)
        with pytest.raises(FromnoiseError, match=words):
            find_weights(tmp_path)
    second.unlink()
    with pytest.raises(FromnoiseError, match=r"00002-of-00002.safetensors is missing"):
        find_weights(tmp_path)
    names = [json.dumps({"weight_map": {"a": name}}) for name in (3, "../x", ".", "x\0y", "\ud800")]
    for content in ("{", "[]", "[" * 100_000, '{"weight_map": 3}', *names):
        index.write_text(content)
        with pytest.raises(FromnoiseError, match=r"index.json"):
            find_weights(tmp_path)


def test_which_file_of_a_folder_is_taken(tmp_path: Path):
    order = (
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.non_ema.safetensors",
        "pytorch_model.bin",
        "pytorch_model.fp16.bin",
    )
    for name in order:
        (torch.save if name.endswith(".bin") else save_file)(WEIGHTS, tmp_path / name)
    for name in order:
        assert find_weights(tmp_path).path.name == name
        (tmp_path / name).unlink()
    with pytest.raises(FromnoiseError, match="has no weights"):
        find_weights(tmp_path)
