"""Every failure is one clear line and an exit code, and leaves nothing behind."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fromnoise.cli import drawing
from tests.cli.conftest import Result, Run
from tests.tiny import write_model


def is_one_line(result: Result, code: int, words: str) -> bool:
    lines = result.stderr.splitlines()
    assert result.code == code, result.stderr
    assert result.stdout == b""
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return words in lines[0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sampler", "eular"], "choose one of euler, euler-a, heun, ddim,"),
        (["--schedule", "x"], "choose one of model"),
        (["--like", "x"], "choose one of diffusers"),
        (["--size", "17"], "multiples of"),
        (["--size", "17x"], "must look like 128 or 192x128"),
        (["--size", "4"], "from 8 to 8192"),
        (["--size", "99999"], "from 8 to 8192"),
        (["--seed", "-1"], "seed must be"),
        (["--seed", "x"], "--seed"),
        (["--steps", "0"], "steps must be"),
        (["--steps", "1.5"], "--steps"),
        (["--guidance", "nan"], "guidance must be"),
        (["--guidance", "-1"], "guidance must be"),
        (["--count", "0"], "count must be"),
        (["--count", "2", "-o", "-"], "one picture"),
        (["-o", "a.gif"], ".png, .jpg"),
        (["-o", "{colour}.png"], "no {colour}"),
        (["-o", "{seed.png"], "double a brace"),
        (["-o", "{seed:q}.png"], "can't make a name"),
        (["-o", "blocked/a.png"], "can't write in blocked"),
        (["-o", "blocked/"], "can't write in blocked"),
        (["--stepz", "3"], "--steps"),
        (["more words"], "in quotes"),
    ],
)
def test_bad_flags(draw: Run, empty_folder: Path, flags: list[str], words: str):
    Path("blocked").write_text("a file where a folder should be")
    result = draw("a red apple", *flags)
    assert is_one_line(result, 2, words), result.stderr
    assert [each.name for each in empty_folder.iterdir()] == ["blocked"]


def test_no_such_model(run: Run):
    assert is_one_line(run("a wolf", "--model", "nowhere"), 2, "there is no checkpoint at nowhere")


def test_prompt_that_is_no_unicode(draw: Run):
    assert is_one_line(draw("a \udcff"), 2, "valid Unicode")


@pytest.mark.parametrize(
    "word", ["trian", "Train ", "stepss", "gird", "infos", "img2im", "help", "versoin", "step", "puhs"]
)
def test_a_word_close_to_a_command_is_no_prompt(draw: Run, empty_folder: Path, word: str):
    assert is_one_line(draw(word.strip()), 2, "did you mean 'fromnoise ")
    assert list(empty_folder.iterdir()) == []


def test_but_generate_takes_it(draw: Run):
    assert draw("generate", "gird").code == 0
    assert draw("wolf").code == 0


@pytest.mark.parametrize("word", ["chair", "rain", "Bull", "pill"])
def test_a_thing_that_is_known_is_no_command_mistyped(draw: Run, word: str):
    assert draw(word, "-o", "x.png").code == 0
    assert Path("x.png").is_file()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't read bad.png"),
        (b"", "bad.png is empty"),
        (b"no picture", "no picture that can be read"),
        (b"cut", "damaged"),
    ],
)
def test_bad_pictures(draw: Run, content: bytes | None, words: str):
    if content == b"cut":
        Image.effect_noise((64, 64), 90).save("bad.png")
        content = Path("bad.png").read_bytes()[:-900]
    if content is not None:
        Path("bad.png").write_bytes(content)
    assert is_one_line(draw("img2img", "bad.png", "a wolf"), 2, words)


def test_nothing_piped_in(draw: Run):
    assert is_one_line(draw("img2img", "-", "a wolf", stdin=b""), 2, "standard input is empty")


@pytest.mark.parametrize("strength", ["-0.1", "1.1", "nan"])
def test_strength(draw: Run, strength: str):
    Image.new("RGB", (16, 16)).save("a.png")
    assert is_one_line(draw("img2img", "a.png", "a wolf", "--strength", strength), 2, "strength must be")


def test_values_that_are_not_finite(run: Run, empty_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    model = write_model(tmp_path_factory.mktemp("nan"))
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.bias"] = torch.full_like(tensors["conv_out.bias"], float("nan"))
    save_file(tensors, weights)
    assert is_one_line(run("a wolf", "--model", model, "-o", "a.png"), 1, "not finite")
    assert list(empty_folder.iterdir()) == []


def test_a_damaged_model(run: Run, tmp_path_factory: pytest.TempPathFactory):
    model = write_model(tmp_path_factory.mktemp("damaged"))
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert is_one_line(run("a wolf", "--model", model), 1, "diffusion_pytorch_model.safetensors is damaged")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "not enough memory"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (SafetensorError("Error while serializing: I/O error: No space left"), 1, "make room on the disk, or choose"),
    ],
)
def test_what_the_machine_refuses(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str):
    monkeypatch.setattr(drawing, "open_model", raising(error))
    assert is_one_line(run("a wolf"), code, words)


def test_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drawing, "open_model", raising(KeyboardInterrupt()))
    result = run("a wolf")
    assert (result.code, result.stdout) == (130, b"")
    assert "stopped" in result.stderr


def test_a_bug_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drawing, "open_model", raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        run("a wolf")


def raising(error: BaseException):
    def fail(*_: object) -> None:
        raise error

    return fail
