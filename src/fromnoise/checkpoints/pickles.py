"""Pickled checkpoints (`.ckpt`, `.pt`, `.pth`, `.bin`), through torch's weights-only reader and nothing else.

A pickle is a program. The weights-only reader builds tensors, numbers and plain containers, and stops at anything
else, so nothing in the file is ever run.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fromnoise.checkpoints.stored import Stored
from fromnoise.runtime.errors import FromnoiseError

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainers put the weights, beside what else they save; looked for in this order."""

STEP = "global_step"

SAFETENSORS = ".safetensors"
"""torch's own reader goes by this ending."""


class _Inert:
    """Stands for a class that published checkpoints name beside their weights. It takes anything and does nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


INERT = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
)
"""What the training records of published checkpoints (sd-v1-4.ckpt, say) name; none of it is needed or built."""

CODE = re.compile(r"GLOBAL ([\w.]+) was not an allowed|Trying to (?:call|load) unsupported \w+ ([\w.]+)")
"""How the reader says what it stopped at."""

READER, ADVICE = "WeightsUnpickler error:", "weights_only"
"""What stands before the cause in the reader's errors, and what is in its advice to let code run instead."""


def open_pickle(path: Path) -> tuple[dict[str, Stored], Mapping[str, str]]:
    """The tensors of a pickled checkpoint, mapped where its format allows, and `global_step` when it is there.

    Raises FromnoiseError when the file is damaged, holds no tensors, or asks for code to be run, which never happens.
    """
    content = read_pickle(path)
    weights = _unwrapped(content)
    tensors = {key: value for key, value in weights.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise FromnoiseError(f"{path} is a pickle without weights by name; is it a checkpoint?")
    if strange := next((key for key, each in tensors.items() if not _is_plain(each)), None):
        raise FromnoiseError(f"{path} keeps {strange} in a form that holds no plain numbers; use another file")
    step = content.get(STEP)
    return {key: Stored.of(each) for key, each in tensors.items()}, {STEP: str(step)} if type(step) is int else {}


def read_pickle(path: Path, stand_ins: Mapping[str, type] = MappingProxyType({})) -> Mapping[Any, Any]:
    """The mapping that a pickle holds, its tensors mapped where its format allows. Raises what `open_pickle` does.

    `stand_ins` are classes to build instead of named ones that torch's reader does not know.
    """
    if path.suffix == SAFETENSORS:
        raise FromnoiseError(f"{path} is a pickle that calls itself {SAFETENSORS}; rename it to .ckpt")
    names = [*((_Inert, name) for name in INERT), *((kind, name) for name, kind in stand_ins.items())]
    try:
        with torch.serialization.safe_globals(names), warnings.catch_warnings():  # pyright: ignore[reportArgumentType]
            warnings.simplefilter("ignore")  # of old formats, which are read all the same
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise FromnoiseError(f"{path} is missing") from None
    except Exception as error:  # the reader meets damage in many ways, each with an exception of its own
        raise _refused(path, error) from error
    if not isinstance(content, Mapping):
        raise FromnoiseError(f"{path} is a pickled {type(content).__name__}, not weights by name")
    return content


def _refused(path: Path, error: Exception) -> FromnoiseError:
    """What to tell of a pickle that the weights-only reader stopped at."""
    if match := CODE.search(str(error)):
        return FromnoiseError(
            f"{path} is a pickle that wants to run code ({match[1] or match[2]}); nothing was run. "
            "Use the .safetensors file of the same model"
        )
    said = str(error).rpartition(READER)[2].strip().splitlines()
    if not said or ADVICE in said[0]:
        said = ["it can't be read safely"]
    return FromnoiseError(f"{path} is damaged or no checkpoint: {said[0]}")


def _is_plain(tensor: Tensor) -> bool:
    """False for what is sparse, quantised, complex or without values."""
    return tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_complex())


def _unwrapped(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The innermost mapping of weights; those of a damaged file may hold one another."""
    seen: set[int] = set()
    while id(content) not in seen:
        seen.add(id(content))
        content = next((inner for name in WRAPPERS if isinstance(inner := content.get(name), Mapping)), content)
    return content
