from __future__ import annotations

import pytest
import torch

from fromnoise.models.extras import Control


def test_controls_scale_and_sum() -> None:
    one = Control((torch.ones(1), torch.full((1,), 2.0)), torch.full((1,), 3.0))
    both = one.scaled(0.5) + one.scaled(2.0)
    assert [float(each) for each in (*both.down, both.mid)] == [2.5, 5.0, 7.5]


def test_controls_of_different_networks_do_not_sum() -> None:
    one, two = Control((torch.ones(1),), torch.ones(1)), Control((), torch.ones(1))
    with pytest.raises(ValueError, match="zip"):
        one + two
