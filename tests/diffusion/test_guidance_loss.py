"""Guidance by a loss: the formulas on values worked out by hand, and gradients where no gradients are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fromnoise as fn
from fromnoise.diffusion.guidance import ByLoss, Guided, Loss, Plan, Projection, ask_jointly, ask_separately
from fromnoise.diffusion.samplers import Step
from fromnoise.images.convert import to_tensor
from fromnoise.pipeline import last
from fromnoise.runtime.errors import UsageError


def halving() -> Guided:
    """Predicts half of what it sees."""
    return Guided(ask_separately({"conditional": lambda x, sigma: x / 2}), [])


def squares(picture: Tensor) -> Tensor:
    return picture.square().sum()


@pytest.mark.parametrize("inference", [False, True])
def test_without_the_network(inference: bool) -> None:
    with torch.inference_mode(inference):
        x, sigma = torch.tensor([3.0, -2.0])[:, None, None, None], torch.tensor([1.0, 2.0])
        moved = ByLoss(halving(), squares, 0.1)(x, sigma)
    # D = x / 2, dL/dD = 2 D = x; left is 1/2 and 4/5
    assert moved.flatten().tolist() == pytest.approx([1.5 - 0.1 * 0.5 * 3, -1 + 0.1 * 0.8 * 2])


@pytest.mark.parametrize("inference", [False, True])
def test_through_the_network(inference: bool) -> None:
    with torch.inference_mode(inference):
        x, sigma = torch.tensor([3.0, -2.0])[:, None, None, None], torch.tensor([1.0, 2.0])
        moved = ByLoss(halving(), squares, 0.1, through_network=True)(x, sigma)
    # dL/dx = dL/dD / 2 = x / 2
    assert moved.flatten().tolist() == pytest.approx([1.5 - 0.1 * 1 * 1.5, -1 + 0.1 * 4 * 1])


def test_a_loss_on_decoded_pictures() -> None:
    x, sigma = torch.full((1, 1, 1, 1), 4.0), torch.ones(1)
    moved = ByLoss(halving(), squares, 0.1, decode=lambda latents: 3 * latents)(x, sigma)
    assert float(moved) == pytest.approx(2 - 0.1 * 0.5 * 2 * 9 * 2)


@pytest.mark.parametrize("through", [False, True])
def test_a_mean_weighs_the_same_at_every_size(through: bool) -> None:
    guided = ByLoss(halving(), lambda picture: picture.square().mean(), 0.1, through_network=through)
    small, large = (guided(torch.full((1, 1, side, side), 4.0), torch.ones(1)) for side in (1, 6))
    torch.testing.assert_close(large, small.expand_as(large))


@pytest.mark.parametrize("through", [False, True])
def test_a_mean_does_not_depend_on_the_batch(through: bool) -> None:
    x, sigma = torch.randn(3, 4, 5, 5), torch.tensor([0.5, 1.0, 3.0])
    guided = ByLoss(halving(), lambda picture: picture.square().mean(), 5.0, through_network=through)
    together = guided(x, sigma)
    for k in range(3):
        torch.testing.assert_close(guided(x[k : k + 1], sigma[k : k + 1]), together[k : k + 1])


@pytest.mark.parametrize(
    "loss", [lambda picture: picture, lambda picture: torch.tensor(1.0), lambda picture: picture.detach().sum()]
)
def test_a_loss_that_says_nothing(loss: Loss) -> None:
    with pytest.raises(UsageError, match=r"end it with \.mean\(\)"):
        ByLoss(halving(), loss, 1.0)(torch.randn(1, 1, 2, 2), torch.ones(1))


class Attending(nn.Module):
    """Attends to words, whose keys and values a gradient needs; its weights are frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values = nn.Linear(3, 4), nn.Linear(3, 4)
        self.requires_grad_(False)

    def forward(self, x: Tensor, sigma: Tensor, words: Tensor) -> Tensor:
        queries = x.flatten(2).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(queries, self.keys(words), self.values(words))
        return x * words.mean() + sigma[:, None, None, None].rsqrt() * mixed.transpose(1, 2).unflatten(2, x.shape[2:])


def test_words_made_in_inference_mode_with_momentum_and_every_stage() -> None:
    network = Attending()
    plan = Plan(6.0, Projection(0.2, 5.0, -0.5), perturbed=2.0, rescale=0.7, threshold=0.9)
    x, sigma, words = torch.randn(2, 4, 3, 3), torch.tensor([1.0, 2.0]), torch.randn(6, 5, 3)

    def draw() -> tuple[Tensor, Tensor]:
        said = words.clone()
        joint = ask_jointly(lambda x, sigma: network(x, sigma, said), plan.roles)
        guided = ByLoss(Guided(joint, plan.stages("epsilon"), momentum=-0.5), squares, 0.01, through_network=True)
        return guided(guided(x.clone(), sigma.clone()), sigma.clone()), guided.state[0]

    with torch.inference_mode():
        made, state = draw()
    expected, _ = draw()
    torch.testing.assert_close(made.clone(), expected)
    assert not state.requires_grad and not made.requires_grad and made.abs().max() > 0


def test_state_is_the_guidances_own() -> None:
    guided = ByLoss(halving(), squares, 1.0)
    guided.state = (torch.ones(1),)
    assert torch.equal(guided.state[0], torch.ones(1))
    moved, unconditional = guided.both(torch.ones(1, 1, 1, 1), torch.ones(1))
    assert float(moved) == 0.0 and float(unconditional) == 0.5


def test_make_it_blue() -> None:
    """The example of docs/guidance.md, as it stands there, on the embedded model."""
    text = (Path(__file__).parents[2] / "docs" / "guidance.md").read_text()
    example = next(block.split("```")[0] for block in text.split("```python\n")[1:] if "loss=blue" in block)
    pipe = fn.load()
    said: dict[str, Any] = {"pipe": pipe, "last": last}
    exec(example, said)
    plain = last(pipe.steps("a red apple", seed=0, steps=10))
    assert blueness(pipe, plain) < -0.1 and blueness(pipe, said["step"]) > blueness(pipe, plain) + 0.3


def blueness(pipe: fn.Pipeline, step: Step) -> float:
    """How much more blue than red and green the picture has, from -1 to 1."""
    red, green, blue = to_tensor(pipe.decode(step.x)).unbind(1)
    return float((blue - (red + green) / 2).mean()) / 2
