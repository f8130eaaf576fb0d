from __future__ import annotations

import pytest
import torch

from fromnoise.runtime import device
from fromnoise.runtime.device import SMALL, cpu_name, mixed_precision, pick_device, pick_dtype, product_dtype
from fromnoise.runtime.errors import UsageError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "parameters", "instructions", "dtype"),
    [
        ("auto", SMALL, True, torch.bfloat16),
        (None, SMALL, True, torch.bfloat16),
        ("auto", SMALL - 1, True, torch.float32),
        ("auto", SMALL, False, torch.float32),
        ("bfloat16", 1, False, torch.bfloat16),
        ("float32", SMALL, True, torch.float32),
    ],
)
def test_number_format(
    name: str | None, parameters: int, instructions: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: instructions)
    assert pick_dtype(name, CPU, parameters) == dtype


@pytest.mark.parametrize(("instructions", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_training_takes_bfloat16_only_where_it_is_not_emulated(
    instructions: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: instructions)
    assert product_dtype(CPU) == dtype
    with mixed_precision():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize("name", ["float16", "int8"])
def test_what_a_cpu_can_not_do_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="float32"):
        pick_dtype(name, CPU, 1)


def test_the_cpu_has_a_name() -> None:
    assert cpu_name().strip()


@pytest.mark.parametrize("name", ["nonsense", "cpu:x", "cuda:99"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(UsageError, match=f"^no device '{name}' here .*; choose cpu"):
        pick_device(name)


def test_the_cpu_is_always_there() -> None:
    assert pick_device("cpu") == CPU


def test_a_number_format_that_is_no_name() -> None:
    with pytest.raises(UsageError, match="no dtype"):
        pick_dtype(["x"], CPU, 1)  # type: ignore[arg-type]
