"""Small C++ kernels, compiled once on the machine that runs them by the compiler found there.

They run on torch's own OpenMP threads: a library is linked against none, so that the loader finds the one that torch
has loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fromnoise.runtime.log import note
from fromnoise.runtime.paths import atomic_write, cache_dir

NATIVE = Path(__file__).parent / "native"

FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fopenmp")
"""No flag among them that lets a compiler reorder sums or forget infinities."""


def library(name: str, flags: Sequence[str]) -> ctypes.CDLL:
    """The library of `native/NAME.cpp`, compiled with `flags` when it isn't in the cache folder, which is said.

    It is named by all that it depends on. Raises OSError without a compiler, SubprocessError when it can't compile.
    """
    compiler = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++")
    if compiler is None:
        raise OSError("no C++ compiler; install g++")
    source, flags = NATIVE / f"{name}.cpp", (*FLAGS, *flags)
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    depends = hashlib.sha256(source.read_bytes() + version + " ".join(flags).encode()).hexdigest()[:32]
    made = cache_dir() / "native" / f"{name}-{depends}.so"
    if not made.is_file():
        note(f"compiling {name} for this CPU, once")
        with atomic_write(made, overwrite=True) as temporary:
            _compile(compiler, flags, source, temporary)
    return ctypes.CDLL(str(made))


def _compile(compiler: str, flags: Sequence[str], source: Path, to: Path) -> None:
    """Compile, then link without OpenMP: the process has torch's already."""
    made = to.with_suffix(".o")
    try:
        for command in ([*flags, "-c", source, "-o", made], ["-shared", made, "-o", to]):
            subprocess.run([compiler, *map(str, command)], capture_output=True, check=True, timeout=300)
    finally:
        made.unlink(missing_ok=True)


def short(error: Exception) -> str:
    """The first line of what a compiler or the system said."""
    said = getattr(error, "stderr", None) or str(error).encode()
    return said.decode(errors="replace").strip().splitlines()[0][:200] if said.strip() else type(error).__name__
