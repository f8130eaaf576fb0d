"""Convolutions that wrap around, against torch's own circular padding."""

from threading import Thread

import pytest
import torch
from torch import nn

from fromnoise.nn.circular import Circular, circularly, wrap
from fromnoise.nn.convolution import Conv2d


@pytest.mark.parametrize("kind", [{}, {"stride": 2}, {"dilation": 2, "padding": 2}, {"groups": 2}, {"padding": (0, 1)}])
def test_torchs_circular_padding(kind: dict[str, object]):
    torch.manual_seed(0)
    fields = {"kernel_size": 3, "padding": 1, **kind}
    ours, theirs = nn.Conv2d(4, 6, **fields), nn.Conv2d(4, 6, **fields, padding_mode="circular")
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 8, 10)
    plain = ours(x)
    with Circular("xy"):
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours(x), plain)


@pytest.mark.parametrize(("axes", "dim"), [("x", 3), ("y", 2)])
def test_one_axis_wraps_and_the_other_does_not(axes: str, dim: int):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 3, 3, padding=1), torch.randn(1, 3, 8, 8)
    wrapped = circularly(conv, axes)
    rolled = (wrapped(x.roll(3, dim)) - wrapped(x).roll(3, dim)).abs().max()
    other = (wrapped(x.roll(3, 5 - dim)) - wrapped(x).roll(3, 5 - dim)).abs().max()
    assert rolled < 1e-5 < other


def test_other_threads_notice_nothing():
    conv, x = nn.Conv2d(3, 3, 3, padding=1), torch.randn(1, 3, 8, 8)
    plain, found = conv(x), []
    with Circular("xy"):
        thread = Thread(target=lambda: found.append(conv(x)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], plain)


def test_wrap():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert wrap(x, 1, 0)[0, 0].tolist() == [[2, 0, 1, 2, 0], [5, 3, 4, 5, 3]]
    assert wrap(x, 0, 1)[0, 0].tolist() == [[3, 4, 5], [0, 1, 2], [3, 4, 5], [0, 1, 2]]


def test_packed_weights_wrap_too():
    conv, x = Conv2d(8, 8, 3, padding=1).requires_grad_(False), torch.randn(1, 8, 6, 6)
    with Circular("xy"):
        expected = conv(x, plus=x)
    conv.pack()
    with torch.inference_mode(), Circular("xy"):
        assert torch.allclose(conv(x, plus=x), expected, atol=1e-6)
