"""What a cold process must not import: each costs a good part of the time that a picture takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DRAW = """
import sys
from fromnoise.cli.main import main
assert main(["a kite", "--seed", "1", "--steps", "1", "-o", sys.argv[1]]) == 0
print(*sys.modules, file=sys.stderr)
"""

NEEDLESS = {"torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "huggingface_hub", "diffusers"}


def test_drawing_loads_no_compiler_and_no_network_code(tmp_path: Path):
    picture = tmp_path / "kite.png"
    done = subprocess.run([sys.executable, "-c", DRAW, picture], capture_output=True, text=True, check=True)
    assert picture.is_file()
    assert not NEEDLESS & set(done.stderr.split())
