"""A model put into 8 bits, written, read and drawn with."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import fromnoise as fn
from fromnoise.adapters import write_lora
from fromnoise.checkpoints.convert import convert_checkpoint, write_checkpoint
from fromnoise.nn.eight_bit import eight_bit_layers, supported
from fromnoise.pipeline import loading
from fromnoise.pipeline.optimising import optimise
from fromnoise.request import Lora
from fromnoise.runtime.errors import FromnoiseError, UsageError
from tests.adapters.models import for_layers, lora

pytestmark = pytest.mark.skipif(not supported(), reason="needs a CPU with AVX512-VNNI or AMX")

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def optimised(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = optimise(tiny_model, prompts=("a wolf",), error=0.1)
    assert made.layers == made.candidates > 10
    assert 0 < made.error < 0.1
    folder = tmp_path_factory.mktemp("optimised") / "model"
    write_checkpoint(made.checkpoint, folder)
    return folder


def drawn(pipe: fn.Pipeline, **fields: object) -> torch.Tensor:
    (picture,) = pipe("a wolf", seed=3, steps=4, **fields)
    return torch.frombuffer(bytearray(picture.image.tobytes()), dtype=torch.uint8).float()


def test_it_draws_nearly_the_same(optimised: Path, tiny_model: Path) -> None:
    small, exact = fn.load(optimised), fn.load(tiny_model)
    assert all(layer.steps is None for layer in eight_bit_layers(small.unet))
    one, other = drawn(small), drawn(exact)
    assert all(layer.steps is not None for layer in eight_bit_layers(small.unet))
    assert 0 < (one - other).abs().mean() < 1
    assert torch.equal(drawn(small), one)


def test_it_takes_turns_in_memory(optimised: Path) -> None:
    meant, pipe = drawn(fn.load(optimised)), fn.load(optimised, low_memory=True)
    for _ in range(2):
        assert torch.equal(drawn(pipe), meant)
    assert all(layer.steps is None and layer.weight.is_meta for layer in eight_bit_layers(pipe.unet))
    pipe.turns.pin()
    assert all(layer.steps is not None for layer in eight_bit_layers(pipe.unet))
    with pytest.raises(UsageError, match="only where it computes so"):
        fn.load(optimised, low_memory=True, dtype="float32")


def test_writing_and_reading_changes_no_number(optimised: Path, tmp_path: Path) -> None:
    tensors = load_file(optimised / WEIGHTS)
    layers = json.loads((optimised / "unet" / "config.json").read_text())["quantization_config"]["layers"]
    assert all(tensors[f"{each}.weight"].dtype == torch.int8 for each in layers)
    assert {each for each in layers if layers[each] == "mixed"} == {each for each in layers if ".ff.net.2" in each}
    unet = fn.load(optimised, dtype="auto").unet
    state = unet.state_dict()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors)
    convert_checkpoint(optimised, tmp_path / "again")
    again = load_file(tmp_path / "again" / WEIGHTS)
    assert all(torch.equal(again[key], each) and again[key].dtype == each.dtype for key, each in tensors.items())


def test_a_damaged_file_is_refused(optimised: Path, tmp_path: Path) -> None:
    def changed(**more: object) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        convert_checkpoint(optimised, folder)
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(json.dumps({**config, **more}))
        return folder

    tensors = load_file(optimised / WEIGHTS)
    lacking = changed()
    name = next(key for key in tensors if key.endswith("weight_scale"))
    save_file({key: each for key, each in tensors.items() if key != name}, lacking / WEIGHTS)
    with pytest.raises(FromnoiseError, match=f"1 missing \\({name}\\)"):
        fn.load(lacking)
    save_file({**tensors, name: tensors[name].int()}, lacking / WEIGHTS)
    with pytest.raises(FromnoiseError, match=f"1 of a wrong type \\({name} torch.int32\\)"):
        fn.load(lacking)
    with pytest.raises(FromnoiseError, match="of a wrong type"):
        fn.load(changed(quantization_config=None))
    with pytest.raises(FromnoiseError, match="quantised by bitsandbytes are not supported"):
        fn.load(changed(quantization_config={"quant_method": "bitsandbytes"}))
    unknown = {"quant_method": "fromnoise-int8", "layers": {"conv_9": "plain"}}
    with pytest.raises(FromnoiseError, match="names conv_9, which is no such layer"):
        fn.load(changed(quantization_config=unknown))
    with pytest.raises(FromnoiseError, match="make the model anew"):
        fn.load(changed(quantization_config=unknown | {"layers": {"conv_in": "folded"}}))


def test_another_dtype_or_cpu_gets_the_weights_values(
    optimised: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = drawn(fn.load(tiny_model))
    plain = fn.load(optimised, dtype="float32")
    assert not list(eight_bit_layers(plain.unet))
    assert 0 < (drawn(plain) - exact).abs().mean() < 1
    said: list[str] = []
    monkeypatch.setattr(loading, "supported", lambda: False)
    monkeypatch.setattr(loading, "note", said.append)
    assert torch.equal(drawn(fn.load(optimised)), drawn(plain))
    assert "needs a CPU with AVX512-VNNI or AMX" in said[0]


def test_int8_is_asked_for_of_the_wrong_model(tiny_model: Path, optimised: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fromnoise optimize MODEL -o OUT"):
        fn.load(tiny_model, dtype="int8")
    assert list(eight_bit_layers(fn.load(optimised, dtype="int8").unet))
    with pytest.raises(UsageError, match="in int8 already"):
        optimise(optimised)


def test_layers_that_lose_too_much_stay_exact(tiny_model: Path) -> None:
    made = optimise(tiny_model, prompts=("a wolf",), error=0.1)
    strict = optimise(tiny_model, prompts=("a wolf",), error=0.8 * made.error)
    assert 0 < strict.layers < made.layers
    assert strict.error <= 0.8 * made.error


def test_an_adapter_acts_beside_8_bit_layers_and_comes_off(optimised: Path, tiny_model: Path, tmp_path: Path) -> None:
    pipe, exact = fn.load(optimised), fn.load(tiny_model)
    plain = drawn(pipe)  # packs the layers
    factors = for_layers(exact.unet, lora, "ff.net") | for_layers(exact.unet, lora, "resnets")
    write_lora(tmp_path / "cat.safetensors", {"unet": factors})
    adapted = {"loras": (Lora(str(tmp_path / "cat.safetensors"), 4.0),)}
    changed = drawn(pipe, **adapted)
    assert (changed - plain).abs().mean() > 4 * (changed - drawn(exact, **adapted)).abs().mean() > 0
    assert torch.equal(drawn(pipe), plain)
