"""The engines by name, and what each is for: pure data, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

AUTO = "auto"
EAGER = "eager"
COMPILE = "compile"
OPENVINO = "openvino"
INT8 = "int8"

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        AUTO: "the fastest that pays for this drawing",
        EAGER: "torch as it stands; runs everything and needs no preparing",
        COMPILE: "torch's own compiler; minutes the first time, at once afterwards",
        OPENVINO: "Intel's engine for CPUs; pip install fromnoise[openvino]",
    }
)
"""What `--engine` takes."""

DTYPES: Mapping[str, str] = MappingProxyType(
    {
        AUTO: "bfloat16 for large models where the CPU has instructions for it, else float32",
        INT8: "only for a model that fromnoise optimize wrote, which takes it by itself",
        "float32": "exact",
        "bfloat16": "half the memory",
        "float16": "half the memory, for GPUs",
    }
)
"""What `--dtype` takes."""
