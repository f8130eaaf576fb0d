from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from fromnoise.cli.commands import COMMANDS, code, command


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train"])
def test_the_list_says_what_the_command_says_of_itself(name: str) -> None:
    said = inspect.getdoc(code(name))
    assert said
    assert COMMANDS[name][1] == " ".join(said.split("\n\n")[0].split())


def test_the_list_says_what_train_says_of_itself() -> None:
    assert command("train").help.startswith(COMMANDS["train"][1] + "\n\n")


def imported_by(*arguments: str) -> set[str]:
    """The modules that a run of the command line leaves imported."""
    run = f"import sys; from fromnoise.cli.main import main; main({list(arguments)}); print('|', *list(sys.modules))"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("|")[2].split())


def test_the_list_of_commands_imports_none_of_them() -> None:
    modules = {f"fromnoise.cli.{where.partition('.')[0]}" for where, _ in COMMANDS.values()}
    assert not (modules | {"numpy", "PIL"}) & imported_by("--help")


def test_a_command_imports_no_other() -> None:
    found = imported_by("samplers", "--help")
    assert "fromnoise.cli.samplers" in found
    assert not {"fromnoise.cli.tuning", "fromnoise.cli.drawing"} & found
