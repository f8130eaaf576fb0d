"""The wheel alone, in an empty environment outside the tree, draws offline."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
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


def test_an_installed_wheel_draws_offline(wheel: Path, tmp_path: Path) -> None:
    """The new environment has the wheel and, through a path file, this one's libraries but not this tree."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    zipfile.ZipFile(wheel).extractall(site)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = "import fromnoise, sys; sys.path[:] = [p for p in sys.path if 'src' not in p]; print(fromnoise.__file__)"
    offline = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    offline.pop("PYTHONPATH", None)
    run = {"cwd": tmp_path, "env": offline, "check": True, "capture_output": True, "text": True}
    assert str(site) in subprocess.run([python, "-c", code], **run).stdout
    command = [python, "-m", "fromnoise", "a red apple, noto style", "--steps", "4", "--seed", "0", "-o", "apple.png"]
    assert subprocess.run(command, **run).stdout.strip() == "apple.png"
    picture = np.asarray(Image.open(tmp_path / "apple.png"))
    assert picture.shape == (128, 128, 3)
    assert picture.std() > 5
