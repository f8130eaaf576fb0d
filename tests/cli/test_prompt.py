"""How a prompt is read, on the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fromnoise.cli.prompt import tokenizers_of
from fromnoise.runtime.errors import UsageError
from fromnoise.text import Tokenizer
from fromnoise.training.vocabulary import save_tokenizer
from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line
from tests.cli.test_main import COMMAND, read_all, with_terminal


@pytest.fixture
def sdxl(tmp_path: Path) -> Path:
    """A folder with SDXL's two tokenizers and nothing else."""
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        save_tokenizer(tmp_path / "sdxl" / name, Tokenizer.clip())
        (tmp_path / "sdxl" / name / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad}))
    return tmp_path / "sdxl"


def test_plain_lines(run: Run, sdxl: Path) -> None:
    result = run("prompt", "a (red:1.3) [ink:oil:0.5] apple <lora:ink:0.5>", "--model", sdxl, "--steps", 10)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.decode().splitlines() == [
        "steps 1-5",
        "  text_encoder, text_encoder_2, chunk 1 (4 of 75): a red×1.3 ink apple",
        "steps 6-10",
        "  text_encoder, text_encoder_2, chunk 1 (4 of 75): a red×1.3 oil apple",
        "adapter: lora ink, text encoder 0.5, U-Net 0.5",
        "changes: before step 6 of 10",
    ]


def test_steps_are_the_embedded_models_own(run: Run) -> None:
    assert b"changes: before step 7 of 12" in run("prompt", "[cat:dog:0.5]").stdout


def test_encoders_that_differ_have_rows_of_their_own(run: Run, sdxl: Path) -> None:
    lines = run("prompt", "wow! AND (a cat:0.5", "--model", sdxl).stdout.decode().splitlines()
    assert lines == [
        "steps 1-25",
        "  part of weight 1, text_encoder, chunk 1 (2 of 75): wow !",
        "  part of weight 1, text_encoder_2, chunk 1 (2 of 75): wow !",
        "  part of weight 0.5, text_encoder, text_encoder_2, chunk 1 (2 of 75): a×1.1 cat×1.1",
        "remark: ( never closed: what follows weighs so to the end",
    ]


def test_json(run: Run, tiny_model: Path) -> None:
    asked = "a {cat|cat} (oops"
    facts = json.loads(run("prompt", asked, "--model", tiny_model, "--json", "--steps", 3).stdout)
    assert (facts["asked"], facts["prompt"]) == (asked, "a cat (oops")
    assert facts["choices"] == [{"source": "{cat|cat}", "text": "cat"}]
    assert facts["moments"][0]["steps"] == [1, 2, 3]
    assert facts["moments"][0]["parts"][0]["encoders"][0]["chunks"][0][-1]["weight"] == 1.1
    assert len(facts["remarks"]) == 1


def test_wildcards(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "animal.txt").write_text("wolf\n")
    result = run("prompt", "a __animal__", "--model", tiny_model, "--wildcards", tmp_path)
    assert "chosen: __animal__ = wolf" in result.stdout.decode()
    assert is_one_line(run("prompt", "a __aminal__", "--wildcards", tmp_path), 2, "did you mean __animal__")
    assert is_one_line(run("prompt", "__a__", "--wildcards", tmp_path / "none"), 2, "there is no folder at")


def test_bad_usage(run: Run, tmp_path: Path) -> None:
    assert is_one_line(run("prompt", "a", "--model", tmp_path), 2, "it has no tokenizer")
    assert is_one_line(run("prompt", "a", "--weighting", "x"), 2, "no weighting 'x'")


def test_a_table_on_a_terminal(sdxl: Path) -> None:
    keyboard, terminal = pty.openpty()
    flags = ["prompt", "a (red:1.3) apple", "--model", str(sdxl)]
    with subprocess.Popen(COMMAND + flags, stdout=terminal, stderr=terminal, env=with_terminal()) as process:
        os.close(terminal)
        shown = read_all(keyboard)
    assert process.returncode == 0
    assert "red×1.3" in shown
    assert "┃" in shown


def test_it_needs_no_torch(sdxl: Path) -> None:
    code = f"import sys; from fromnoise.cli.main import main; main(['prompt', 'a cat', '--model', {str(sdxl)!r}])"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_single_file_has_its_familys_tokenizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SimpleNamespace(family="sdxl", tokenizers={"tokenizer": None, "tokenizer_2": None})
    monkeypatch.setattr("fromnoise.checkpoints.open_checkpoint", lambda path: opened)
    (tmp_path / "model.safetensors").write_bytes(b"")
    first, second = tokenizers_of(str(tmp_path / "model.safetensors"))
    assert (first.pad, second.pad, first.max_length) == (49407, 0, 77)
    opened.tokenizers = {}
    with pytest.raises(UsageError, match="has no tokenizer"):
        tokenizers_of(str(tmp_path / "model.safetensors"))


def test_the_embedded_model_is_the_default() -> None:
    assert [each.max_length for each in tokenizers_of(None)] == [32]


@pytest.mark.parametrize(
    ("words", "said"), [("a\udcff", "valid Unicode"), ("<lora:" * 2000, "at most 8000 characters")]
)
def test_what_no_drawing_takes_is_refused(run: Run, sdxl: Path, words: str, said: str) -> None:
    assert is_one_line(run("prompt", words, "--model", sdxl), 2, said)
