from __future__ import annotations

import pytest
import torch

from fromnoise.diffusion.guidance import batched_pair, classifier_free, pair


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (1.0, 3.0), (2.5, 6.0)])
def test_classifier_free(scale: float, expected: float) -> None:
    guided = classifier_free(pair(lambda x, sigma: x * 3, lambda x, sigma: x * 1), scale)
    assert float(guided(torch.ones(1, 1, 1, 1), torch.ones(1))) == pytest.approx(expected)


def test_one_batch_gives_what_two_calls_give() -> None:
    words = torch.tensor([1.0, 1.0, 3.0, 3.0])[:, None, None, None]  # the unconditional half comes first
    joint = classifier_free(batched_pair(lambda x, sigma: x * words * sigma[:, None, None, None]), 2.0)
    apart = classifier_free(
        pair(
            lambda x, sigma: x * 3 * sigma[:, None, None, None],
            lambda x, sigma: x * sigma[:, None, None, None],
        ),
        2.0,
    )
    x, sigma = torch.randn(2, 1, 2, 2), torch.tensor([1.0, 2.0])
    torch.testing.assert_close(joint(x, sigma), apart(x, sigma))
