"""The command line run in this process, in an empty folder, with a tiny model."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fromnoise.cli.main import main


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def paths(self) -> list[Path]:
        return [Path(line) for line in self.stdout.decode().splitlines()]


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("a wolf", "--seed", 0, stdin=b"...")`."""

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        code = main([str(each) for each in arguments])
        captured = capsysbinary.readouterr()
        return Result(code, captured.out, captured.err.decode())

    return call


@pytest.fixture
def draw(run: Run, tiny_model: Path) -> Run:
    """The same with the tiny model and three steps."""

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        steps = () if "--steps" in arguments else ("--steps", 3)
        return run(*arguments, "--model", tiny_model, *steps, stdin=stdin)

    return call
