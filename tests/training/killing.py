"""Kill a training run at the moment it has a checkpoint."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import torch


def kill_when_saved(code: str, checkpoint: Path) -> int:
    """SIGKILL a process that runs `code` as soon as `checkpoint` is there; the steps that it holds."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return torch.load(checkpoint, weights_only=True)["step"]
