"""A request's guidance settings as the plan that guides a run."""

from __future__ import annotations

from torch import Tensor

from fromnoise.diffusion.guidance import Interval, Plan, Projection
from fromnoise.diffusion.samplers import TWO_DENOISERS
from fromnoise.request import Request


def plan(request: Request, sigmas: Tensor, weights: tuple[float, ...], *, embedded: bool) -> Plan:
    """How a run with these noise levels and composed prompts is guided; `embedded` for a network that guides itself."""
    assert request.guidance is not None
    return Plan(
        scale=1.0 if embedded else request.guidance,
        projection=projection(request),
        perturbed=request.pag,
        rescale=request.rescale,
        threshold=request.threshold,
        interval=None if request.interval is None else interval(request.interval, sigmas),
        weights=weights,
        pair=request.sampler in TWO_DENOISERS,
    )


def projection(request: Request) -> Projection | None:
    """The request's APG settings; a norm limit of 0 is none."""
    if request.apg is None:
        return None
    parallel, limit, momentum = request.apg
    return Projection(parallel, limit or None, momentum)


def interval(shares: tuple[float, float], sigmas: Tensor) -> Interval:
    """The noise levels of the steps from one share of all steps to another, 0 and 1 being the ends."""
    steps = len(sigmas) - 1
    first, last = (round(share * steps) for share in shares)
    return Interval(low=float(sigmas[last]), high=float(sigmas[first]))
