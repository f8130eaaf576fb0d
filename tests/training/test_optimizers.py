from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fromnoise.training.optimizers import Muon, muon, orthogonal


def test_orthogonal_brings_every_singular_value_near_one() -> None:
    matrix = torch.randn(3, 24, 60, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(-2, 1, 60))
    for each in (matrix, matrix.mT):
        values = torch.linalg.svdvals(orthogonal(each))
        assert values.min() > 0.4
        assert values.max() < 1.4


def test_muon_moves_as_torchs_own_does() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(12, 20, bias=False)
    theirs, before = copy.deepcopy(ours), ours.weight.detach().clone()
    mine = Muon(ours.parameters(), decay=0.1)
    oracle = torch.optim.Muon(theirs.parameters(), lr=1e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(4):
        gradient = torch.randn(20, 12, generator=torch.Generator().manual_seed(seed))
        for layer, optimizer in ((ours, mine), (theirs, oracle)):
            layer.weight.grad = gradient.clone()
            optimizer.step()
    moved, asked = (ours.weight - before).detach().flatten(), (theirs.weight - before).detach().flatten()
    assert torch.cosine_similarity(moved, asked, dim=0) > 0.999  # both may round to bfloat16 on the way
    assert abs(float(moved.norm() / asked.norm()) - 1) < 0.01


def fitted(steps: int) -> float:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))
    optimizer = muon(model, ("2.",))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    x = torch.randn(8, 3, 8, 8)
    loss = torch.tensor(0.0)
    for _ in range(steps):
        loss = (model(x) - x.roll(1, -1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def test_kernels_biases_and_what_stays_outside_all_learn() -> None:
    assert fitted(60) < 0.2
    assert fitted(1) > 0.8


def test_its_state_resumes_bit_for_bit() -> None:
    def run(model: nn.Module, optimizer: object, steps: range) -> None:
        for seed in steps:
            for weight in model.parameters():
                weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
            optimizer.step()  # type: ignore[attr-defined]

    def weights(model: nn.Module) -> list[Tensor]:
        return [each.detach() for each in model.parameters()]

    whole = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(4, 2))
    parts = copy.deepcopy(whole)
    run(whole, muon(whole, ("1.",)), range(6))
    first = muon(parts, ("1.",))
    run(parts, first, range(3))
    second = muon(parts, ("1.",))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(parts, second, range(3, 6))
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert torch.equal(one, other)
