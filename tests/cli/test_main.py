"""The command as a person starts it: help, speed, terminals, pipes and Ctrl-C, in processes of their own."""

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fromnoise.cli.main import COMMANDS
from tests.cli.conftest import Run

START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
from fromnoise.cli.main import main
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", START]


def test_help_needs_no_torch():
    code = "import sys; from fromnoise.cli.main import main; main(['--help']); main(['generate', '--help']); "
    heavy = "heavy = {'torch', 'tokenizers', 'scipy'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, command: str):
    result = run(command, "--help")
    text = result.stdout.decode()
    assert (result.code, result.stderr) == (0, "")
    assert "For example:" in text
    assert f"fromnoise {command}" in text or command == "generate"


def test_nothing_at_all_is_help(run: Run):
    assert b"generate" in run().stdout
    assert run().code == 0
    assert run("-h").stdout == run("--help").stdout == run().stdout


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "fromnoise", "trian"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: did you mean 'fromnoise train'? To draw it: fromnoise generate 'trian'\n"


def test_notes_and_progress_are_for_terminals(tiny_model: Path):
    keyboard, terminal = pty.openpty()
    flags = ["a wolf", "--model", str(tiny_model), "--steps", "3"]
    with subprocess.Popen(COMMAND + flags, stdout=subprocess.PIPE, stderr=terminal, env=with_terminal()) as process:
        os.close(terminal)
        shown = read_all(keyboard)
        assert process.stdout is not None
        path = Path(process.stdout.read().decode().strip())
    assert process.returncode == 0
    assert path.is_file()
    assert f"seed {path.name.split('-')[3]}" in shown
    assert "drawing" in shown
    assert "3/3" in shown
    assert str(path) not in shown


def with_terminal() -> dict[str, str]:
    return {**os.environ, "TERM": "xterm-256color"}


def read_all(descriptor: int) -> str:
    text = b""
    while select.select([descriptor], [], [], 120)[0]:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            break
        text += part
    os.close(descriptor)
    return text.decode(errors="replace")


def test_ctrl_c_leaves_only_whole_files(tiny_model: Path, empty_folder: Path):
    flags = ["a wolf", "--model", str(tiny_model), "--steps", "20", "--count", "4000", "--exact", "-o", "out/"]
    process = subprocess.Popen(COMMAND + flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = Path(process.stdout.readline().strip())
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate()
    assert process.returncode == 130
    assert said == "warning: stopped; every file written so far is whole\n"
    written = {first, *map(Path, rest.split())}
    assert written <= {path.relative_to(empty_folder) for path in (empty_folder / "out").iterdir()}
    for path in (empty_folder / "out").iterdir():
        Image.open(path).load()


def test_a_reader_that_goes_away(tiny_model: Path):
    command = f"{COMMAND[0]} -m fromnoise 'a wolf' --model {tiny_model} --steps 1 --count 200 --exact | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert len(list(Path("outputs").iterdir())) < 200


def test_help_shows_what_a_prompt_may_say(run: Run):
    shown = run("generate", "--help").stdout.decode()
    assert "__animal__" in shown
    assert "<lora:my-wolf:0.8>" in shown


def test_a_prompt_that_begins_with_a_hyphen(run: Run):
    result = run("generate", "-foo")
    assert result.code == 2
    assert "a prompt that begins with - goes after --" in result.stderr


def test_ctrl_c_before_all_code_is_imported():
    code = "import sys; sys.modules['fromnoise.cli.main'] = None\n"
    code += "import builtins; real = builtins.__import__\n"
    code += "def stopped(name, *a, **k):\n    if name == 'fromnoise.cli.main': raise KeyboardInterrupt\n"
    code += "    return real(name, *a, **k)\n"
    code += "builtins.__import__ = stopped\nfrom fromnoise.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "warning: stopped\n")
