"""Our guidance against diffusers' on random outputs of a network."""

from __future__ import annotations

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.guider_utils import rescale_noise_cfg
from diffusers.guiders.perturbed_attention_guidance import PerturbedAttentionGuidance
from torch import Tensor

from fromnoise.diffusion.denoiser import denoiser, scalings
from fromnoise.diffusion.guidance import (
    Answers,
    ClassifierFree,
    Guided,
    Perturbed,
    Projected,
    Rescale,
    ask_jointly,
    ask_pair,
    project,
)
from fromnoise.diffusion.schedules import NoiseSchedule

SCHEDULE = NoiseSchedule.from_betas("scaled_linear", 0.00085, 0.012)
PREDICTIONS = ["epsilon", "v_prediction"]


def outputs(count: int, seed: int = 0) -> Tensor:
    """Outputs for pictures of different strength, (count, 3, 4, 8, 8)."""
    made = torch.randn(count, 3, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return made * torch.tensor([0.3, 1.0, 2.5])[:, None, None, None]


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal to 1e-5 of the largest magnitude."""
    assert float((ours - theirs).abs().max() / theirs.abs().max()) <= 1e-5


def pictures(prediction: str, x: Tensor, sigma: Tensor, answers: Tensor) -> list[Tensor]:
    """Outputs as predicted pictures."""
    return [denoiser(lambda *_, answer=answer: answer, SCHEDULE, prediction)(x, sigma) for answer in answers]


def output(prediction: str, x: Tensor, sigma: Tensor, picture: Tensor) -> Tensor:
    """A predicted picture as the network's output, in float64."""
    scale = scalings(prediction, sigma.double())
    return ((picture.double() - scale.skip * x.double()) / scale.out).float()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("amount", [0.0, 0.7, 1.0])
def test_rescale(prediction: str, amount: float) -> None:
    made, x, sigma = outputs(2), outputs(1, seed=1)[0] * 3, torch.tensor([0.6, 2.0, 14.0])
    conditional, guided = pictures(prediction, x, sigma, made)
    ours = Rescale(amount, prediction)(Answers(x, sigma, conditional), guided)
    close(output(prediction, x, sigma, ours), rescale_noise_cfg(made[1], made[0], amount))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("limit", [None, 5.0, 1000.0])
@pytest.mark.parametrize("momentum", [0.0, -0.5, 0.75])
def test_projected(eta: float, limit: float | None, momentum: float) -> None:
    calls = [outputs(2, seed=seed) for seed in range(4)]
    answers = iter(calls)
    guided = Guided(ask_pair(lambda x, sigma: tuple(next(answers))), [Projected(9.0, eta, limit)], momentum=momentum)
    buffer = MomentumBuffer(momentum) if momentum else None
    for conditional, unconditional in calls:
        ours = guided(conditional, torch.ones(3))
        # their formulation of the paper adds scale - 1 times the update to the conditional prediction
        theirs = normalized_guidance(conditional, unconditional, 9.0 - 1, buffer, eta, limit or 0.0, True)
        close(ours, theirs)


def test_projection_is_parallel_and_the_rest_is_orthogonal() -> None:
    difference, onto = outputs(2)
    along = project(difference, onto)
    cosines = [torch.cosine_similarity(each.flatten(1), onto.flatten(1)) for each in (along, difference - along)]
    torch.testing.assert_close(cosines[0].abs(), torch.ones(3))
    assert float(cosines[1].abs().max()) <= 1e-5


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("amount", [0.0, 0.7])
def test_perturbed_attention_with_classifier_free_guidance_and_rescale(prediction: str, amount: float) -> None:
    unconditional, conditional, perturbed = made = outputs(3)
    x, sigma = outputs(1, seed=1)[0] * 3, torch.tensor([0.6, 2.0, 14.0])
    guider = PerturbedAttentionGuidance(5.0, 2.8, perturbed_guidance_layers=[0], guidance_rescale=amount)
    theirs = guider.forward(conditional, unconditional, perturbed).pred

    joint = denoiser(lambda *_: made.flatten(0, 1), SCHEDULE, prediction)
    ask = ask_jointly(joint, ("unconditional", "conditional", "perturbed"))
    ours = Guided(ask, [ClassifierFree(5.0), Perturbed(2.8), Rescale(amount, prediction)])(x, sigma)
    close(output(prediction, x, sigma, ours), theirs)
