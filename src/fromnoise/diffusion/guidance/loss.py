"""Guidance by any loss on the predicted picture: "make it blue"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fromnoise.diffusion.guidance.guided import GuidedDenoiser
from fromnoise.runtime.errors import UsageError

Loss = Callable[[Tensor], Tensor]
"""One predicted picture (1, ...) to one number to be made smaller."""

Decode = Callable[[Tensor], Tensor]
"""Latents (1, C, h, w) to what the loss looks at, differentiably."""


class ByLoss:
    """Moves the predicted picture down a loss's gradient; one object serves one run.

    With D the picture that `guided` predicts from x, L the loss of `decode(D)`, picture by picture, and W = weight h w
    (so that for a loss that is a mean over pixels a weight means the same at every size):

    - `through_network=False`: D - W sigma^2 / (1 + sigma^2) dL/dD. The network isn't differentiated; the factor is the
      variance that unit-variance data has left at sigma (Song et al. 2023, "Pseudoinverse-guided diffusion models",
      section 3.2), in place of the network's own Jacobian.
    - `through_network=True`: D - W sigma^2 dL/dx, the score of the loss added to that of the picture (Dhariwal &
      Nichol 2021, eq. 10; Chung et al. 2023, "Diffusion posterior sampling", eq. 16). It takes about half as long
      again, and about a tenth of the weight, since a network's Jacobian moves neighbouring latents together.

    Works on the predicted picture, under `torch.inference_mode` too. Raises UsageError for a loss that gives more than
    one number, or one that doesn't depend on the picture.
    """

    def __init__(
        self,
        guided: GuidedDenoiser,
        loss: Loss,
        weight: float,
        *,
        decode: Decode | None = None,
        through_network: bool = False,
    ) -> None:
        self._guided, self._loss, self._weight = guided, loss, weight
        self._decode, self._through_network = decode, through_network

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What `guided` must keep."""
        return self._guided.state

    @state.setter
    def state(self, state: tuple[Tensor, ...]) -> None:
        self._guided.state = state

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The predicted picture (B, C, h, w), moved."""
        return self.both(x, sigma)[0]

    def both(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The moved picture and the unconditional one, for CFG++."""
        if self._through_network:
            return self._through(x, sigma)
        denoised, unconditional = self._guided.both(x, sigma)
        left = (sigma**2 / (1 + sigma**2))[:, None, None, None]
        return denoised - self._weight * left * self._gradient(denoised), unconditional

    def _through(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            # Tensors made under inference mode can't take part in a graph; their clones can.
            x, sigma = x.clone().requires_grad_(), sigma.clone()
            denoised, unconditional = self._guided.both(x, sigma)
            (slope,) = torch.autograd.grad(denoised, x, self._gradient(denoised))
        moved = denoised.detach() - self._weight * sigma[:, None, None, None] ** 2 * slope
        return moved, unconditional.detach()

    def _gradient(self, denoised: Tensor) -> Tensor:
        """h w dL/dD, one picture after the other, so that a picture's gradient does not depend on its batch."""
        area = denoised[0, 0].numel()
        return area * torch.cat([self._slope(picture) for picture in denoised.detach().split(1)])

    def _slope(self, picture: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            picture = picture.clone().requires_grad_()
            value = self._loss(picture if self._decode is None else self._decode(picture))
            if value.numel() != 1 or not value.requires_grad:
                raise UsageError(
                    f"the loss must give one number that depends on the picture, not {tuple(value.shape)} numbers; "
                    "end it with .mean() and use torch operations only"
                )
            return torch.autograd.grad(value.sum(), picture)[0]
