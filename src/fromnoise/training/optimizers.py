"""The optimisers that training uses: AdamW, and Muon for the weights that are matrices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fromnoise.runtime.device import product_dtype

BETA2 = 0.99
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz coefficients of Jordan et al. 2024, steep at zero: five rounds bring singular values near 1."""


def adamw(parameters: Iterable[nn.Parameter], decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused; norms and biases do not decay."""
    learns = [each for each in parameters if each.requires_grad]
    groups = [
        {"params": [each for each in learns if each.ndim > 1], "weight_decay": decay},
        {"params": [each for each in learns if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, BETA2), fused=True)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices with orthonormal rows or columns, roughly (Jordan et al. 2024, "Muon"): (B, m, n).

    Newton-Schulz in bfloat16 where the device computes with it, whose errors the next step's update corrects.
    """
    a, b, c = QUINTIC
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).to(product_dtype(matrices.device))
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, so that every direction of a matrix learns equally fast.

    Jordan et al. 2024; a convolution's kernel counts as a matrix (out, in * h * w). Updates are scaled to AdamW's
    usual size, 0.2 * sqrt(max(m, n)) per unit of learning rate (Liu et al. 2025, eq. 4), so both share one rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": 1e-3, "momentum": momentum, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient, those of one shape together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for weights in alike.values():
                self._move(weights, group["lr"], group["momentum"], group["weight_decay"])

    def _move(self, weights: list[Tensor], rate: float, momentum: float, decay: float) -> None:
        gradients = [cast(Tensor, each.grad) for each in weights]
        averages = [self.state[each].setdefault("momentum", torch.zeros_like(each)) for each in weights]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        looked_ahead = torch.stack(torch._foreach_lerp(gradients, averages, momentum)).flatten(2)
        updates = orthogonal(looked_ahead).view(-1, *weights[0].shape)
        torch._foreach_mul_(weights, 1 - rate * decay)
        torch._foreach_add_(weights, updates.unbind(), alpha=-0.2 * rate * max(looked_ahead.shape[1:]) ** 0.5)


class Together:
    """Several optimisers that step as one."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all."""
        return [group for each in self.optimizers for group in each.param_groups]

    def step(self) -> None:
        """Step each."""
        for each in self.optimizers:
            each.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of each."""
        for each in self.optimizers:
            each.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of each, by place."""
        return {str(index): each.state_dict() for index, each in enumerate(self.optimizers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for index, each in enumerate(self.optimizers):
            each.load_state_dict(state[str(index)])


Optimizer = torch.optim.Optimizer | Together


def muon(model: nn.Module, outside: tuple[str, ...] = ()) -> Together:
    """Muon for the matrices and kernels of `model`; AdamW for the rest and for names that start with `outside`.

    What reads the input or writes the output, and embeddings, belong outside (Jordan et al. 2024).
    """
    learns = {name: each for name, each in model.named_parameters() if each.requires_grad}
    inner = [each for name, each in learns.items() if each.ndim > 1 and not name.startswith(outside)]
    inner_ids = set(map(id, inner))
    return Together([Muon(inner), adamw(each for each in learns.values() if id(each) not in inner_ids)])
