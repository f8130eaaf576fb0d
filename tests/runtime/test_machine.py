from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from fromnoise.models.work import Kind
from fromnoise.pipeline import measuring
from fromnoise.runtime.machine import Machine, Speed, known_machine, machine_name, peak_bytes, resident_bytes


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FROMNOISE_CACHE", str(tmp_path))
    return tmp_path


def test_speeds_are_kept(own_cache: Path):
    machine = Machine("one", (Speed("convolution", 64, 320, 1.5e9),), {"convolution": 1e-3}, {"convolution": 2e-3})
    assert known_machine("one") is None
    machine.save()
    assert known_machine("one") == machine
    assert known_machine("two") is None
    for each in own_cache.rglob("*.json"):
        each.write_text("{")
    assert known_machine("one") is None


def test_corrections_are_bounded_and_belong_to_one_kind_of_work():
    machine = Machine("one", ())
    assert machine.learned("a") == 1.0
    machine.learn("a", 1.5)
    machine.learn("b", 100.0)
    assert (machine.learned("a"), machine.learned("b")) == (1.5, 4.0)
    assert Machine("two", ()).learned("a") == 1.0


def test_formats_are_measured_apart():
    assert machine_name(torch.float32) != machine_name(torch.bfloat16)
    assert torch.__version__ in machine_name(torch.float32)


@pytest.mark.parametrize("kind", ["convolution", "transformer", "narrow transformer", "attention"])
def test_every_kind_of_block_has_a_speed(kind: Kind):
    found, ready = measuring.speeds((kind, 2, 4, 320), measuring.Form(torch.float32))
    assert (found.kind, found.rows, found.width) == (kind, 32, 320)
    assert 1e6 < found.rate < 1e15
    assert (ready.kind, ready.rows, ready.width) == ("getting ready", 32, 320)
    assert 1e4 < ready.rate < 1e12
    begun = measuring.start(kind, measuring.Form(torch.float32))
    assert 1e-6 < begun < 0.1
    later, _ = measuring.speeds((kind, 2, 4, 320), measuring.Form(torch.float32), begun=10.0)
    assert found.rate < later.rate < 10 * found.rate  # starting is never all that a call takes


def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch):
    calls: list[measuring.Block] = []

    def speeds(block: measuring.Block, form: measuring.Form, begun: float) -> list[Speed]:
        assert begun > 0
        calls.append(block)
        return [Speed(block[0], block[2], block[3], 1e9)]

    monkeypatch.setattr(measuring, "speeds", speeds)
    wanted = measuring.Form(torch.float32, packed=True)
    found = measuring.machine(wanted)
    assert measuring.machine(wanted) == found
    assert tuple(calls) == measuring.BLOCKS
    assert set(found.starts) == {measuring.STEP, *found.anew}
    assert 1e-4 <= found.starts[measuring.STEP] < 0.1
    assert 0 < found.anew["convolution"] < 0.1


def test_memory_is_that_of_this_process():
    before = resident_bytes()
    held = mmap.mmap(-1, 200_000_000)  # fresh pages, where an allocator may have some left
    torch.frombuffer(held, dtype=torch.uint8).fill_(1)
    assert resident_bytes() - before > 0.9 * len(held)
    assert peak_bytes() >= 0.9 * before
