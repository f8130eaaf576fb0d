"""The stages, on values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fromnoise.diffusion.denoiser import denoiser, scalings
from fromnoise.diffusion.guidance import (
    Answers,
    ClassifierFree,
    DynamicThreshold,
    Perturbed,
    Projected,
    Rescale,
    Stage,
    ask_jointly,
    ask_separately,
    batched_pair,
    classifier_free,
    pair,
)
from fromnoise.diffusion.schedules import NoiseSchedule

STAGES = [
    ClassifierFree(7.0),
    Projected(7.0, parallel=0.3, limit=2.0),
    Perturbed(3.0),
    Rescale(0.7, "epsilon"),
    Rescale(0.7, "v_prediction"),
    DynamicThreshold(0.9),
]


def row(*values: float) -> Tensor:
    """One picture of one channel and one row of pixels."""
    return torch.tensor(values)[None, None, None]


def answers(conditional: Tensor, unconditional: Tensor | None = None, perturbed: Tensor | None = None) -> Answers:
    return Answers(torch.zeros_like(conditional), torch.ones(1), conditional, unconditional, perturbed)


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


def test_one_batch_of_three_roles() -> None:
    words = torch.tensor([1.0, 1.0, 3.0, 3.0, 4.0, 4.0])[:, None, None, None]
    roles = ("unconditional", "conditional", "perturbed")
    joint = ask_jointly(lambda x, sigma: x * words * sigma[:, None, None, None], roles)
    x, sigma = torch.randn(2, 1, 2, 2), torch.tensor([1.0, 2.0])
    scale = sigma[:, None, None, None]
    apart = ask_separately(
        {
            "conditional": lambda x, _: x * 3 * scale,
            "unconditional": lambda x, _: x * scale,
            "perturbed": lambda x, _: x * 4 * scale,
        }
    )
    for name in roles:
        torch.testing.assert_close(getattr(joint(x, sigma), name), getattr(apart(x, sigma), name))


def test_composed_prompts() -> None:
    words = torch.tensor([1.0, 3.0, 6.0])[:, None, None, None]
    ask = ask_jointly(lambda x, sigma: x * words, ("unconditional", "conditional"), weights=(1.0, 0.5))
    made = ask(row(1.0), torch.ones(1))
    assert float(made.conditional) == 1 + 1.0 * (3 - 1) + 0.5 * (6 - 1)
    assert float(ClassifierFree(2.0)(made, made.conditional)) == 1 + 2 * (1.0 * (3 - 1) + 0.5 * (6 - 1))


def test_perturbed_adds_to_what_is_guided() -> None:
    assert float(Perturbed(3.0)(answers(row(5.0), None, row(4.0)), row(7.0))) == 7 + 3 * (5 - 4)


def test_projected_splits_the_difference() -> None:
    # c = (3, 4), c - u = (10, 5): its part along c is (10*3 + 5*4) / 25 * (3, 4) = (6, 8), the rest (4, -3)
    asked = answers(row(3.0, 4.0), row(-7.0, -1.0))
    torch.testing.assert_close(Projected(3.0)(asked, row(0.0, 0.0)), row(3 + 2 * 4.0, 4 - 2 * 3.0))
    torch.testing.assert_close(Projected(3.0, parallel=0.5)(asked, row(0.0, 0.0)), row(3 + 2 * 7.0, 4 + 2 * 1.0))
    plain = ClassifierFree(3.0)(asked, row(0.0, 0.0))
    torch.testing.assert_close(Projected(3.0, parallel=1.0)(asked, row(0.0, 0.0)), plain)


def test_projected_limits_the_norm() -> None:
    asked = answers(row(3.0, 4.0), row(-7.0, -1.0))  # the difference's norm is 125 ** 0.5
    limited = Projected(3.0, limit=125**0.5 / 2)(asked, row(0.0, 0.0))
    torch.testing.assert_close(limited, row(3 + 2 * 2.0, 4 - 2 * 1.5))
    unlimited = Projected(3.0, limit=100.0)(asked, row(0.0, 0.0))
    torch.testing.assert_close(unlimited, Projected(3.0)(asked, row(0.0, 0.0)))


def test_rescale_works_on_the_networks_output() -> None:
    sigma, x = torch.tensor([0.8]), row(0.3, -0.2, 0.9)
    scale = scalings("v_prediction", sigma)
    conditional, guided = row(1.0, 2.0, 3.0), row(4.0, 8.0, 12.0)  # outputs: the deviation is 4 times as large
    pictures = [scale.skip * x + scale.out * each for each in (conditional, guided)]
    asked = Answers(x, sigma, pictures[0])
    expected = scale.skip * x + scale.out * (0.75 * guided / 4 + 0.25 * guided)
    torch.testing.assert_close(Rescale(0.75, "v_prediction")(asked, pictures[1]), expected)


def test_dynamic_threshold() -> None:
    # Guided: mean 0, its largest value 10, the median of absolute values 4. Conditional: mean 5, median 2.
    guided, conditional = row(-10.0, -4.0, 0.0, 4.0, 10.0), row(2.0, 3.0, 5.0, 7.0, 8.0)
    torch.testing.assert_close(
        DynamicThreshold(0.5)(answers(conditional), guided), row(-4.0, -4.0, 0.0, 4.0, 4.0) * 2 / 4
    )
    torch.testing.assert_close(DynamicThreshold(1.0)(answers(conditional), guided), guided * 3 / 10)


def test_dynamic_threshold_never_stretches() -> None:
    guided, conditional = row(-1.0, 0.0, 1.0), row(-8.0, 0.0, 8.0)
    torch.testing.assert_close(DynamicThreshold(1.0)(answers(conditional), guided), guided)
    flat = row(2.0, 2.0, 2.0)
    torch.testing.assert_close(DynamicThreshold(1.0)(answers(flat), flat), flat)


def test_dynamic_threshold_is_imagens_where_the_range_is_one() -> None:
    guided, conditional = row(-3.0, -1.0, 1.0, 3.0), row(-1.0, -1.0, 1.0, 1.0)
    torch.testing.assert_close(DynamicThreshold(1.0)(answers(conditional), guided), guided.clamp(-3, 3) / 3)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: type(stage).__name__)
def test_every_picture_for_itself(stage: Stage) -> None:
    x, conditional, unconditional, perturbed, guided = torch.randn(5, 3, 4, 5, 5)
    guided, sigma = guided * torch.tensor([1.0, 5.0, 20.0])[:, None, None, None], torch.tensor([0.1, 1.0, 9.0])
    together = stage(Answers(x, sigma, conditional, unconditional, perturbed), guided)
    for index in range(3):
        k = slice(index, index + 1)
        alone = stage(Answers(x[k], sigma[k], conditional[k], unconditional[k], perturbed[k]), guided[k])
        assert torch.equal(alone, together[k])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_weighted_sums_are_the_same_in_both_spaces(prediction: str) -> None:
    schedule = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012)
    outputs = torch.randn(3, 2, 4, 5, 5)
    x, sigma = torch.randn(2, 4, 5, 5), torch.tensor([0.5, 7.0])

    def through(output: Tensor) -> Tensor:
        return denoiser(lambda *_: output, schedule, prediction)(x, sigma)

    conditional, unconditional, perturbed = outputs
    asked = Answers(x, sigma, *(through(each) for each in outputs))
    guided = Perturbed(3.0)(asked, ClassifierFree(7.0)(asked, asked.conditional))
    expected = unconditional + 7 * (conditional - unconditional) + 3 * (conditional - perturbed)
    torch.testing.assert_close(guided, through(expected), rtol=1e-4, atol=1e-4)
