import json
import os
import pty
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.cli.conftest import Run
from tests.cli.test_errors import is_one_line
from tests.hub.server import LARGE, TOKEN, Hub, Repository
from tests.hub.standing_in import hub, logged_in, published

__all__ = ["hub", "logged_in"]

AT_A_TERMINAL = """
import fcntl, signal, sys, termios
signal.signal(signal.SIGINT, signal.default_int_handler)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C typed there reaches this process
from fromnoise.cli.main import main
sys.exit(main())
"""


def test_pull_then_draw(run: Run, hub: Hub, tiny_model: Path):
    published(hub, "a/tiny", tiny_model)
    result = run("pull", "a/tiny")
    assert (result.code, result.paths[0].name) == (0, hub.repositories["a/tiny"].commit)
    assert "every hash is right; licence: apache-2.0" in result.stderr
    assert "already here, every hash is right" in run("pull", "a/tiny").stderr
    drawn = run("a wolf", "--model", "a/tiny", "--steps", 1, "-o", "wolf.png")
    assert (drawn.code, drawn.paths) == (0, [Path("wolf.png")])
    assert b"Model: a/tiny" in Path("wolf.png").read_bytes()


def test_a_name_does_for_a_path_in_every_command(run: Run, hub: Hub, tiny_model: Path):
    published(hub, "a/tiny", tiny_model)
    for command in (["info", "a/tiny"], ["merge", "a/tiny", "a/tiny", "-o", "x"], ["prompt", "a", "--model", "a/tiny"]):
        assert is_one_line(run(*command), 2, "`fromnoise pull a/tiny` fetches it")
    assert run("pull", "a/tiny").code == 0
    assert b"UNet2DConditionModel" in run("info", "a/tiny").stdout
    assert run("convert", "a/tiny", "tiny.safetensors").code == 0
    assert run("merge", "a/tiny", "tiny.safetensors", "-o", "merged.safetensors").code == 0
    assert is_one_line(run("extract", "a/tiny", "a/tiny", "-o", "lora.safetensors"), 1, "there is nothing to extract")
    assert run("prompt", "a wolf", "--model", "a/tiny").stdout == run("prompt", "a wolf", "--model", tiny_model).stdout
    assert is_one_line(run("info", "outputs/none.png"), 2, "outputs/none.png")


def test_what_was_not_pulled(run: Run, hub: Hub, tiny_model: Path):
    published(hub, "a/tiny", tiny_model)
    assert is_one_line(run("a wolf", "--model", "a/tiny"), 2, "`fromnoise pull a/tiny` fetches it")
    assert is_one_line(run("a wolf", "--lora", "a/lora:0.8"), 2, "`fromnoise pull a/lora` fetches it")
    assert hub.requests == []


def test_pull_one_file_prints_it(run: Run, hub: Hub):
    hub.repositories["a/lora"] = Repository({"wolf.safetensors": b"w" * LARGE, "fox.safetensors": b"f" * LARGE})
    result = run("pull", "a/lora", "--file", "wolf*")
    assert result.paths[0].read_bytes() == b"w" * LARGE
    assert "licence: none stated" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "'nowhere' is no name on the hub; it looks like owner/name"),
        (["a/../b"], "is no name on the hub"),
        (["a/none"], "there is no a/none at http"),
        (["a/lora", "--revision", "../x"], "is no revision"),
        (["a/lora", "--revision", "v2"], "has no revision v2"),
        (["a/lora", "--file", "*.ckpt"], "no file is called *.ckpt"),
    ],
)
def test_what_pull_refuses(run: Run, hub: Hub, arguments: list[str], words: str):
    hub.repositories["a/lora"] = Repository({"wolf.safetensors": b"w" * LARGE})
    assert is_one_line(run("pull", *arguments), 2, words)


def test_offline(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["a/lora"] = Repository({"wolf.safetensors": b"w" * LARGE})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert is_one_line(run("pull", "a/lora"), 1, "a/lora is not here yet, and offline mode is on")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    place = run("pull", "a/lora").paths
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = run("pull", "a/lora")
    assert (again.code, again.paths) == (0, place)
    assert "pulled before" in again.stderr


def test_push_and_its_rehearsal(run: Run, hub: Hub, logged_in: str, tiny_model: Path, tmp_path: Path):
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "mine")
    assert is_one_line(run("push", folder, "me/tiny"), 2, "say under which licence it is published: --licence")
    rehearsed = run("push", folder, "me/tiny", "--licence", "mit", "--dry-run")
    assert b"license: mit" in rehearsed.stdout
    assert "nothing was sent" in rehearsed.stderr
    assert hub.requests == []
    result = run("push", folder, "me/tiny", "--licence", "mit", "--private")
    assert (result.code, result.stdout.decode().strip()) == (0, f"{hub.url}/me/tiny")
    assert result.stderr == ""
    assert hub.repositories["me/tiny"].private
    assert is_one_line(run("push", folder, "me/tiny@v1"), 2, "publish to me/tiny")


@pytest.mark.parametrize(
    "command",
    [
        ("info",),
        ("models",),
        ("pull", "me/x"),
        ("push", "model", "me/x", "--licence", "mit"),
        ("push", "model", "me/x", "--licence", "mit", "--dry-run"),
        ("a wolf", "--model", "me/x"),
    ],
)
def test_an_endpoint_that_is_none(tiny_model: Path, tmp_path: Path, command: tuple[str, ...]):
    """In a process of its own: the client reads it once."""
    import shutil

    shutil.copytree(tiny_model, tmp_path / "model")
    environment = {**os.environ, "HF_ENDPOINT": "http://me:secret@[bad", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "fromnoise", *command], env=environment, cwd=tmp_path, capture_output=True, check=False
    )
    told = "error: HF_ENDPOINT or HF_TOKEN can't be used; check what they are set to\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", told)


def test_models(run: Run, hub: Hub):
    hub.repositories["a/lora"] = Repository({"wolf.safetensors": b"w" * LARGE}, "mit")
    place = run("pull", "a/lora").paths[0]
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert set(rows) == {"fromnoise", "a/lora"}
    assert (rows["a/lora"]["bytes"], rows["a/lora"]["path"]) == (LARGE, str(place))
    table = run("models").stdout.decode().splitlines()
    assert table[0].split() == ["name", "kind", "from", "size", "licence", "hash"]
    assert rows["a/lora"]["sha256"][:10] in table[2]
    assert run("models", "--verify").code == 0
    place.resolve().write_bytes(b"x" * LARGE)
    result = run("models", "--verify")
    assert result.code == 1
    assert "damaged: wolf.safetensors" in result.stdout.decode()
    assert "damaged: a/lora; `fromnoise pull OWNER/NAME` mends" in result.stderr


def test_the_environment_is_honoured_and_the_token_never_told(hub: Hub, tiny_model: Path, tmp_path: Path):
    """A process of its own, since the client reads its settings when it is imported."""
    held = published(hub, "a/tiny", tiny_model)
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fromnoise", *arguments]
        return subprocess.run(command, env={**os.environ, **settings, **more}, capture_output=True, text=True)

    pulled = call("pull", "a/tiny")
    assert pulled.returncode == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).is_relative_to(tmp_path / "home")
    assert {given for _, path, _, given in hub.requests if "a/tiny" in path} == {f"Bearer {TOKEN}"}
    hub.corrupt = "model_index.json"
    held.files["model_index.json"] += b" "
    refused = [call("pull", "a/tiny"), call("pull", "a/none"), call("pull", "a/none", HF_HUB_OFFLINE="1")]
    assert [each.returncode for each in refused] == [1, 2, 1]
    assert not any(TOKEN in each.stdout + each.stderr for each in (pulled, *refused))
    assert not any(TOKEN.encode() in path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())


@pytest.mark.parametrize("command", ["pull", "push", "models"])
def test_help_is_light(command: str):
    code = (
        "import sys; from fromnoise.cli.main import main; main(['" + command + "', '--help']); "
        "sys.exit(bool({'torch', 'huggingface_hub'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode == 0


def test_ctrl_c_at_the_question_for_the_licence(tiny_model: Path):
    """It comes the moment the question is there: a read that is about to wait for the keyboard would not notice."""
    flags = ["push", str(tiny_model), "me/tiny", "--dry-run"]
    code, shown = asked(flags, b"\x03")
    assert code == 130
    assert "Traceback" not in shown
    assert shown.splitlines()[-1] == "warning: stopped; every file written so far is whole"


def test_the_licence_is_asked_for_until_there_is_one(tiny_model: Path):
    flags = ["push", str(tiny_model), "me/tiny", "--dry-run"]
    code, shown = asked(flags, b"\n", b" mit \n")
    assert (code, shown.count("licence: ")) == (0, 2)
    assert "license: mit" in shown
    code, shown = asked(flags, b"\x04")
    assert (code, shown.count("error: say under which licence")) == (2, 1)


def asked(flags: list[str], *answers: bytes) -> tuple[int, str]:
    """The exit code and what a terminal showed, each answer typed the moment the question for it is there."""
    keyboard, terminal = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", AT_A_TERMINAL, *flags]
    shown, left = b"", list(answers)
    with subprocess.Popen(command, **streams, env=environment, start_new_session=True) as process:
        os.close(terminal)
        with suppress(OSError):  # how Linux says that the other end is closed
            while select.select([keyboard], [], [], 60)[0] and (data := os.read(keyboard, 1 << 16)):
                shown += data
                if left and shown.endswith(b"licence: "):
                    os.write(keyboard, left.pop(0))
        os.close(keyboard)  # which ends a command that hangs
    return process.returncode, shown.decode().replace("\r", "")


def test_push_takes_the_data_and_the_run(run: Run, tiny_model: Path):
    Path("run").mkdir()
    Path("run/recipe.toml").write_text("steps = 7\n")
    flags = ("--licence", "mit", "--data", "my own sprites", "--run", "run", "--dry-run")
    result = run("push", tiny_model, "me/tiny", *flags)
    assert result.code == 0
    assert b"my own sprites" in result.stdout
    assert b"| steps | 7 |" in result.stdout


def is_one_line_of_a_stop(code: int, shown: str) -> bool:
    return (code, shown) == (130, "warning: stopped; every file written so far is whole\n")
