"""The wheel alone, in an empty environment outside the tree, draws offline."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size <= 100 * 2**20
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"fromnoise/py.typed", "fromnoise/model/model_index.json", "fromnoise/model/README.md"} <= names


NO_NETWORK = """
import socket

def refused(*arguments):
    raise OSError("there is no network here")

socket.socket.connect = socket.getaddrinfo = refused
"""


def needed(name: str, known: set[str]) -> set[str]:
    """The distributions that an installed one needs, itself among them, without extras."""
    if canonicalize_name(name) in known:
        return known
    known = known | {canonicalize_name(name)}
    for requirement in map(Requirement, metadata.requires(name) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            known = needed(requirement.name, known)
    return known


def link_libraries(site: Path, names: set[str]) -> None:
    """Let a new environment have these distributions of this one's, and no other."""
    for name in names:
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))


def test_an_installed_wheel_draws_offline(wheel: Path, tmp_path: Path) -> None:
    """The new environment has the wheel and what it says that it needs, and no network."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    zipfile.ZipFile(wheel).extractall(site)
    link_libraries(site, needed("fromnoise", set()) - {"fromnoise"})
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    run = {"cwd": tmp_path, "env": environment, "check": True, "capture_output": True, "text": True}
    assert str(site) in subprocess.run([python, "-c", "import fromnoise; print(fromnoise.__file__)"], **run).stdout
    assert subprocess.run([python, "-c", "import pytest"], **{**run, "check": False}).returncode == 1
    command = [python, "-m", "fromnoise", "a red apple, noto style", "--steps", "4", "--seed", "0", "-o", "apple.png"]
    assert subprocess.run(command, **run).stdout.strip() == "apple.png"
    picture = np.asarray(Image.open(tmp_path / "apple.png"))
    assert picture.shape == (128, 128, 3)
    assert picture.std() > 5
