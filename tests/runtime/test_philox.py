"""CUDA's noise on the CPU, against published numbers and against a second, scalar implementation."""

import math

import numpy as np
import pytest
import torch

from fromnoise.runtime.philox import ComfyNoise, PhiloxNoise, philox, philox_normal

KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""Counter, key and output of philox4x32-10, from Random123's tests/kat_vectors."""

WEB_UI = [
    [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
    [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
    [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
]
"""Seed 0, shape (3, 4): what AUTOMATIC1111's modules/rng_philox.py says that it prints."""

CUDA_42 = [0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530, -0.6494, -0.8175, 0.5280, -1.2753]
"""torch.manual_seed(42); torch.randn(2, 5, device="cuda"), as printed in FlashInfer's docstrings."""

CUDA_42_IN_FOURS = [
    [0.1940, 2.1614, -0.1721, 0.8491],
    [0.1391, -0.1082, -0.7174, 0.7566],
    [-0.5187, 1.2268, 0.6255, -0.9117],
]
"""Three draws of four numbers after seed 42 on a card, as recorded in a published torch.compile report."""


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str):
    low, high = words(key)
    found = philox(np.array(words(counter), np.uint64)[:, None], (low, high))
    assert found[:, 0].tolist() == words(answer)


def test_what_the_web_ui_prints():
    noise = philox_normal(0, 0, (3, 4))
    assert noise.dtype == torch.float32
    assert torch.allclose(noise, torch.tensor(WEB_UI), rtol=0, atol=3e-7)


def test_what_cards_printed():
    found = philox_normal(42, 0, (2, 5)).flatten().tolist()
    assert [round(each, 4) for each in found] == CUDA_42
    noise = PhiloxNoise([42], (4,))
    for wanted in CUDA_42_IN_FOURS:
        assert [round(each, 4) for each in noise()[0].tolist()] == wanted


def scalar_normal(seed: int, draw: int, index: int) -> float:
    """The algorithm once more, on Python's whole numbers, one at a time."""
    a, b, c, d = draw, 0, index, 0
    low, high = seed % 2**32, seed // 2**32
    for _ in range(10):
        right, left = divmod(c * 0xCD9E8D57, 2**32), divmod(a * 0xD2511F53, 2**32)
        a, b, c, d = right[0] ^ b ^ low, right[1], left[0] ^ d ^ high, left[1]
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return math.sqrt(-2 * math.log((a + 0.5) / 2**32)) * math.sin(2 * math.pi * (b + 0.5) / 2**32)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 123456789012345, 2**64 - 1])
@pytest.mark.parametrize("draw", [0, 1, 30])
def test_same_as_one_at_a_time(seed: int, draw: int):
    wanted = [scalar_normal(seed, draw, index) for index in range(12)]
    assert philox_normal(seed, draw, (3, 2, 2)).flatten().tolist() == pytest.approx(wanted, abs=2e-6)


def test_it_is_normal():
    noise = philox_normal(7, 0, (4, 128, 128)).double()
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    assert abs(float((noise**4).mean()) - 3) < 0.1


def test_one_stream_per_picture():
    noise = PhiloxNoise([3, 4, 2**64 - 1], (4, 2, 2))
    alone = PhiloxNoise([4], (4, 2, 2))
    for _ in range(3):
        assert torch.equal(noise()[1:2], alone())


def test_comfyui_starts_on_the_cpu():
    noise = ComfyNoise([5, 6], (4, 2, 2))
    start = [torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)]
    assert torch.equal(noise(), torch.stack(start))
    card = PhiloxNoise([5, 6], (4, 2, 2))
    for _ in range(2):
        assert torch.equal(noise(), card())


@pytest.mark.parametrize("kind", [PhiloxNoise, ComfyNoise])
def test_state_goes_on(kind: type[PhiloxNoise]):
    noise = kind([3, 4], (2, 2))
    noise()
    state = noise.state
    wanted = noise(2.0, 1.0)
    again = kind([3, 4], (2, 2))
    again.state = state
    assert torch.equal(again(), wanted)
    assert not torch.equal(again(), wanted)
