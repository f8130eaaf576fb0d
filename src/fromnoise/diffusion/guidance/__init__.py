"""Guidance makes a Denoiser from Denoisers. It knows no model; what it must remember is built anew for every run."""

from fromnoise.diffusion.guidance.answers import (
    ROLES,
    Answers,
    Ask,
    Pair,
    Role,
    ask_jointly,
    ask_pair,
    ask_separately,
    batched_pair,
    pair,
)
from fromnoise.diffusion.guidance.guided import Guided, GuidedDenoiser, Interval, classifier_free
from fromnoise.diffusion.guidance.loss import ByLoss, Decode, Loss
from fromnoise.diffusion.guidance.plan import Network, Plan, Projection
from fromnoise.diffusion.guidance.stages import (
    ClassifierFree,
    DynamicThreshold,
    Perturbed,
    Projected,
    Rescale,
    Stage,
    dynamic_threshold,
    project,
    rescale,
)

__all__ = [
    "ROLES",
    "Answers",
    "Ask",
    "ByLoss",
    "ClassifierFree",
    "Decode",
    "DynamicThreshold",
    "Guided",
    "GuidedDenoiser",
    "Interval",
    "Loss",
    "Network",
    "Pair",
    "Perturbed",
    "Plan",
    "Projected",
    "Projection",
    "Rescale",
    "Role",
    "Stage",
    "ask_jointly",
    "ask_pair",
    "ask_separately",
    "batched_pair",
    "classifier_free",
    "dynamic_threshold",
    "pair",
    "project",
    "rescale",
]
