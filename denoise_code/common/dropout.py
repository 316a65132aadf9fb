"""Dropout that is cheap on a CPU; the detector and all recommenders use it."""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """nn.Dropout whose mask costs a quarter of the random numbers: 16 bits an element, so the rate is exact to 2^-16.

    On a CPU drawing the masks of nn.Dropout is a quarter of a training step.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        # Four numbers of 16 bits, uniform over -2^15 .. 2^15 - 1, come from one of 64 bits.
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        uniform = words.view(torch.int16)[: x.numel()].reshape(x.shape)
        first_to_keep = round(self.rate * 2**16) - 2**15
        scale = (uniform >= first_to_keep).to(x.dtype).mul_(1 / (1 - self.rate))
        return x * scale
